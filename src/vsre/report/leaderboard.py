"""A page on many runs: those measured on the same test side by side, ranked as far as the sample allows.

Runs on different test data are never ranked against each other: they are grouped by the fingerprint of the data. A
model trained under a leaking protocol is shown, marked and not ranked. Published figures are kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict

from vsre.diagnose.metrics import ERROR_SHARE, HEADLINES
from vsre.diagnose.samples import sample_files
from vsre.errors import VsreError
from vsre.report.compare import answer_draws, answered_by_all, answers_to, blind_floor, unpaired
from vsre.report.halves import short_names
from vsre.report.inputs import Estimate, ReportRun, Run, open_run
from vsre.report.ranks import apart_by_interval, rank_ranges, told_apart
from vsre.report.results import Column, columns
from vsre.sources.protocols import PROTOCOLS

TITLES = {"test_s": "Test-S", "test_g": "Test-G", "unseen": "Unseen"}
GAIN = Column("Picture gain", "accuracy with the picture minus grey frame", ("picture_reliance", "gain", "blank"))
"""Shown if some run asked the probes."""


class PublishedRow(BaseModel):
    """A model's figures as printed, in per cent; a model with a stage was trained by the paper."""

    model_config = ConfigDict(extra="forbid")
    model: str
    stage_1: str | None = None
    stage_2: str | None = None
    test_s: float | None = None
    test_g: float | None = None

    @property
    def trained(self) -> bool:
        return self.stage_1 is not None or self.stage_2 is not None


class PublishedTable(BaseModel):
    model_config = ConfigDict(extra="forbid")
    where: str
    rows: list[PublishedRow]


class PublishedBenchmark(BaseModel):
    model_config = ConfigDict(extra="forbid")
    benchmark: str
    scale: str
    before: float
    after: float


class Published(BaseModel):
    """The paper's figures (arXiv 2412.18224), read from published.yaml in this package."""

    model_config = ConfigDict(extra="forbid")
    paper: str
    id: str
    test: str
    note: str
    leak_note: str
    leak_why: str
    tables: list[PublishedTable]
    benchmarks: list[PublishedBenchmark]
    benchmarks_where: str


def published() -> Published:
    return Published.model_validate(yaml.safe_load(Path(__file__).with_name("published.yaml").read_text("utf-8")))


@dataclass(frozen=True)
class Row:
    """A run of the leaderboard. `rank` is (best, worst), None if it is not ranked, for the reason in `why`."""

    run: Run
    rank: tuple[int, int] | None = None
    why: str = ""

    @property
    def protocol(self) -> str:
        told = self.run.metrics.get("protocol")
        return told if isinstance(told, str) and told else "not stated"

    @property
    def leaks(self) -> bool:
        known = PROTOCOLS.get(self.protocol)
        return known is not None and not known.removes

    @property
    def errors(self) -> float:
        """The share of questions that got an error instead of an answer."""
        errors, asked = (self.run.metrics.get(name) for name in ("errors", "n_samples"))
        return errors / asked if isinstance(errors, int) and isinstance(asked, int) and asked else 0.0

    @property
    def model(self) -> str:
        """The model's id if it has one: folders on somebody's machine are not shown."""
        told = self.run.info.get("model")
        return told if isinstance(told, str) and not Path(told).is_absolute() and told != self.run.name else ""

    @property
    def pictures(self) -> str:
        """What was shown instead of the pictures; empty if the pictures themselves were shown."""
        engine = self.run.setting("engine")
        return str(engine.get("pictures") or "") if isinstance(engine, dict) else ""

    @property
    def below_floor(self) -> bool:
        """Whether this sample fails to show the model above what can be reached without seeing a picture."""
        _, floor = blind_floor(self.run)
        figure = next((f for f in ("test_g", "test_s") if self.run.estimate(f, "acc_t").value is not None), "unseen")
        above = unpaired(floor, self.run.estimate(figure, "acc_t"))
        return above is not None and above.verdict != "higher"

    def as_json(self, shown: Sequence[Column]) -> dict[str, Any]:
        guesser, floor = blind_floor(self.run)
        spread = self.run.section("test_g").get("acc_t_over_templates")
        return {
            "name": self.run.name,
            "folder": str(self.run.spec.folder),
            "model": self.run.info.get("model"),
            "protocol": self.protocol,
            "leaks": self.leaks,
            "rank": None if self.rank is None else list(self.rank),
            "why_not_ranked": self.why or None,
            **{c.title: _plain(c.of(self.run)) for c in shown},
            "spread_over_wordings": spread if isinstance(spread, dict) else None,
            "blind_floor": {"guesser": guesser, **_plain(floor)},
            "not_above_blind_floor": self.below_floor,
            **{name: self.run.metrics.get(name) for name in ("n_triplets", "n_images", "n_samples", "errors")},
        }


def _plain(e: Estimate) -> dict[str, Any]:
    return {"value": e.value, "low": e.low, "high": e.high, "n": e.n}


@dataclass(frozen=True)
class Group:
    """Runs on the same test data; `how` says what they were ranked by: "paired", "intervals", or None."""

    data: str | None
    source: str
    rows: list[Row]
    how: Literal["paired", "intervals"] | None = None

    @property
    def runs(self) -> list[Run]:
        return [row.run for row in self.rows]


@dataclass(frozen=True)
class Leaderboard:
    """Groups of runs in the order given, what was set aside and why, and the published figures."""

    by: str
    groups: list[Group]
    set_aside: list[tuple[str, str]]
    published: Published = field(default_factory=published)

    @property
    def columns(self) -> tuple[Column, ...]:
        runs = [run for group in self.groups for run in group.runs]
        return (*columns(runs), GAIN) if any(GAIN.of(run).value is not None for run in runs) else columns(runs)

    def as_json(self) -> dict[str, Any]:
        return {
            "by": TITLES[self.by],
            "groups": [
                {"data": g.data, "ranked_by": g.how, "rows": [row.as_json(self.columns) for row in g.rows]}
                for g in self.groups
            ],
            "set_aside": [{"run": name, "why": why} for name, why in self.set_aside],
            "published": self.published.model_dump(),
        }


def make_leaderboard(folders: Sequence[Path | str], *, by: str = "test_g", seed: int = 0) -> Leaderboard:
    """Gather run folders of `vsre diagnose`, ranked within each test set by `by` ("test_s", "test_g" or "unseen").

    A folder that is not such a run, or not finished, is set aside with the reason. Raises VsreError if none is left.
    """
    if by not in TITLES:
        raise VsreError(f"cannot rank by {by!r}. There are: {', '.join(TITLES)}.")
    paths = list(dict.fromkeys(Path(f) for f in folders))
    if not paths:
        raise VsreError("A leaderboard needs at least one run folder of `vsre diagnose`.")
    runs, aside, seen = [], [], set()
    for path, name in zip(paths, short_names(paths), strict=True):
        try:
            if path.resolve() in seen:
                raise VsreError("given twice")
            seen.add(path.resolve())
            runs.append(_open(path, name))
        except VsreError as error:
            aside.append((name, str(error)))
    if not runs:
        told = "\n".join(f"  {name}: {why}" for name, why in aside)
        raise VsreError(f"None of the folders is a finished run of `vsre diagnose`:\n{told}")
    return Leaderboard(by, [_ranked(group, by, seed) for group in _grouped(runs)], aside)


def _open(path: Path, name: str) -> Run:
    """Open a finished run of `vsre diagnose`; raises VsreError with the reason for anything else."""
    if not path.is_dir():
        raise VsreError("no such folder")
    if not (path / "metrics.json").is_file():
        if sample_files(path / "samples"):
            raise VsreError("not finished: the same `vsre diagnose` command resumes it")
        raise VsreError("no metrics.json in it, so it is not a run folder")
    if not (path / "run.json").is_file():
        raise VsreError("no run.json in it, so it is unknown which model was asked what")
    run = open_run(ReportRun(name=name, folder=path))
    if run.info.get("benchmark"):
        raise VsreError(f"a run of the benchmark {run.info['benchmark']}: this page has runs of `vsre diagnose` only")
    if not run.metrics.keys() & HEADLINES.keys():
        raise VsreError("an unknown kind of run: metrics.json has none of " + ", ".join(HEADLINES))
    if all(run.estimate(f, "acc_t").value is None for f in HEADLINES):
        raise VsreError(f"asked none of the packs {', '.join(HEADLINES.values())}, so it has none of the figures")
    return run


def _grouped(runs: Sequence[Run]) -> list[Group]:
    """Group runs on the same statements for which every pack that both were asked has the same content."""
    groups: list[tuple[str | None, dict[str, Any], list[Run]]] = []
    for run in runs:
        data, packs = run.setting("triplets"), run.setting("packs")
        packs = {p: v for p, v in packs.items() if p in HEADLINES.values()} if isinstance(packs, dict) else {}
        for known, others, members in groups:
            if data is not None and known == data and all(others.get(p, v) == v for p, v in packs.items()):
                members.append(run)
                others.update(packs)
                break
        else:
            groups.append((data if isinstance(data, str) else None, dict(packs), [run]))
    return [Group(data, _source(members[0]), [Row(run) for run in members]) for data, _, members in groups]


def _source(run: Run) -> str:
    """Return the last parts of the test data's path: clearer than a fingerprint, without a machine's folders."""
    data = run.info.get("data")
    path = data.get("triplets") if isinstance(data, dict) else None
    return "/".join(Path(path).parts[-3:]).lstrip("/") if isinstance(path, str) else ""


def _ranked(group: Group, by: str, seed: int) -> Group:
    """Rank a group, best first; rows that are not ranked come last."""
    place = (by, "acc_t")
    title = TITLES[by]
    ranked, rest = [], []
    for row in sorted(group.rows, key=lambda r: -(r.run.estimate(*place).value or 0.0)):
        if row.run.estimate(*place).value is None:
            rest.append(replace(row, why=f"not ranked: no {title}"))
        elif row.errors > ERROR_SHARE:
            rest.append(replace(row, why=f"not ranked: {100 * row.errors:.1f} % of its answers are errors"))
        elif row.leaks:
            rest.append(replace(row, why="not ranked: its protocol leaks"))
        elif group.data is None:
            rest.append(replace(row, why="not ranked: its run.json does not say on which data"))
        else:
            ranked.append(row)
    if len(ranked) < 2:
        only = [replace(row, why="nothing to rank against") for row in ranked]
        return replace(group, rows=only + rest, how=None)
    drawn = _draws([row.run for row in ranked], by, seed)
    figures = [row.run.estimate(*place) for row in ranked]
    above = apart_by_interval(figures) if drawn is None else told_apart(*drawn)
    ranks = [replace(row, rank=rank) for row, rank in zip(ranked, rank_ranges(above), strict=True)]
    return replace(group, rows=ranks + rest, how="intervals" if drawn is None else "paired")


def _draws(runs: Sequence[Run], by: str, seed: int) -> tuple[np.ndarray, int] | None:
    """Return each run's figure on the same resamples of the same images, and the number of images.

    A question that one run answered with an error counts for none of them. None if answers are missing or are about
    different images.
    """
    tables = [answers_to(run, by) for run in runs]
    if any(table is None for table in tables):
        return None
    answers = answered_by_all([table for table in tables if table is not None])
    images = {tuple(pc.unique(table["image_id"]).sort().to_pylist()) for table in answers}
    drawn = np.stack([answer_draws(table, seed=seed) for table in answers])
    return (drawn, len(images.pop())) if len(images) == 1 else None
