"""What a report is made from: run folders, training logs, and a description of the experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field

from vsre.diagnose.metrics import HEADLINES
from vsre.diagnose.samples import sample_files
from vsre.errors import VsreError

Role = Literal["base", "rung", "expert", "shipped"]


class ReportRun(BaseModel):
    """One model's diagnosis, as a row of the report.

    `folder` is a run folder of `vsre diagnose` (run.json, metrics.json, samples/*.parquet); `logs` are the
    JSONL logs of the stages that trained the model, in order; `note` is one line a reader should know. `against` names
    the earlier models that it is compared with; empty: the one before it (and, over seeds, the first). `also` are its
    run folders on further test sets, by their names (`vsre.recipes.also`).
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    folder: Path
    role: Role = "rung"
    logs: tuple[Path, ...] = ()
    note: str = ""
    against: tuple[str, ...] = ()
    also: dict[str, Path] = Field(default_factory=dict)


class ReportMeta(BaseModel):
    """Everything a report says besides the figures; what is left empty is left out of the page.

    Tables are lists of rows (column name to value) and may have any columns; dictionaries are shown as name
    and value. `shown` is for painted pictures that a verifier looked at: "data", and the tables "pictures" and
    "verifier". `times` holds seconds for each step. `triplets` is the tested data set, for pictures and boxes.
    `seed` draws the gallery.
    """

    model_config = ConfigDict(extra="forbid")

    title: str = "Does the model see where things are?"
    question: str = (
        "We showed pictures to vision-language models and asked whether one thing stands in a certain "
        "relation to another (left of, behind, inside …), each question in many wordings, to learn whether "
        "the answer follows the picture or the wording."
    )
    protocol: str | None = None
    protocol_note: str = ""
    datasets: list[dict[str, Any]] = Field(default_factory=list)
    set_aside: list[dict[str, Any]] = Field(default_factory=list)
    checks: dict[str, Any] = Field(default_factory=dict)
    painter: list[dict[str, Any]] = Field(default_factory=list)
    shown: list[dict[str, Any]] = Field(default_factory=list)
    models: list[dict[str, Any]] = Field(default_factory=list)
    stages: list[dict[str, Any]] = Field(default_factory=list)
    seeds: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    times: dict[str, float | None] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    command: str = ""
    triplets: Path | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval and the number of things it is measured on; any part may be unknown."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @classmethod
    def of(cls, thing: Any) -> Estimate:
        """Convert null, a number, or {"value", "low", "high", "n"}; what is not a finite number becomes unknown."""
        if isinstance(thing, Estimate):
            return thing
        parts = thing if isinstance(thing, dict) else {"value": thing}
        value, low, high = (_number(parts.get(k)) for k in ("value", "low", "high"))
        n = _number(parts.get("n"))
        if value is None or low is None or high is None:
            low = high = None
        return cls(value, low, high, None if n is None else int(n))


def _number(thing: Any) -> float | None:
    if isinstance(thing, bool) or not isinstance(thing, int | float) or not math.isfinite(thing):
        return None
    return float(thing)


@dataclass
class Run:
    """A run folder in memory: its figures, and its samples as files to scan."""

    spec: ReportRun
    metrics: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.spec.name

    def section(self, name: str) -> dict[str, Any]:
        """Return a group of figures ("test_s", "by_relation", ...), empty if the run has none."""
        found = self.metrics.get(name)
        return found if isinstance(found, dict) else {}

    def setting(self, name: str) -> Any:
        """Return what run.json says was asked, such as "triplets" or "packs"; None if it does not say."""
        settings = self.info.get("settings")
        return settings.get(name) if isinstance(settings, dict) else None

    def estimate(self, *path: str) -> Estimate:
        """Return a figure by its place, as in estimate("test_g", "acc_t")."""
        at: Any = self.metrics
        for name in path:
            at = at.get(name) if isinstance(at, dict) else None
        return Estimate.of(at)

    def templates(self) -> list[dict[str, Any]]:
        """Return the figures of each template, pack by pack, the headline packs last."""
        found = [t for t in self.metrics.get("templates") or [] if isinstance(t, dict)]
        last = list(HEADLINES.values())
        return sorted(found, key=lambda t: last.index(t["pack"]) if t.get("pack") in last else -1)

    def statements(self, column: str) -> dict[str, int]:
        """Return how many triplets are behind each value of a sample column ("relation", "meta_category")."""
        table = self.samples((column, "key"))
        if table is None:
            return {}
        counted = table.group_by(column).aggregate([("key", "count_distinct")])
        return dict(zip(counted[column].to_pylist(), counted["key_count_distinct"].to_pylist(), strict=True))

    def samples(self, columns: Sequence[str], where: pads.Expression | None = None) -> pa.Table | None:
        """Return these columns of the sample rows that match; None if there are none or a column is missing."""
        if not self.files:
            return None
        data = pads.dataset([str(f) for f in self.files], format="parquet")
        if not set(columns) <= set(data.schema.names):
            return None
        table = data.to_table(columns=list(columns), filter=where)
        return table if len(table) else None


def open_run(spec: ReportRun) -> Run:
    """Open a run folder, leaving its samples on disk; raises VsreError if it has no readable metrics.json."""
    folder = Path(spec.folder)
    metrics = _read_json(folder / "metrics.json", f"Run `vsre diagnose` with this output folder first ({spec.name}).")
    info = _read_json(folder / "run.json", "") if (folder / "run.json").is_file() else {}
    return Run(spec, metrics, info, sample_files(folder / "samples"))


def _read_json(path: Path, advice: str) -> dict[str, Any]:
    if not path.is_file():
        raise VsreError(f"{path}: no such file, so there is nothing to report. {advice}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise VsreError(f"{path}: not readable as JSON ({error}). {advice}") from error
    if not isinstance(found, dict):
        raise VsreError(f"{path}: expected a JSON object, found {type(found).__name__}. {advice}")
    return found


def before_and_after(runs: Sequence[Run]) -> tuple[Run, Run]:
    """Return the two runs a report contrasts: the first base (else the first), and the last expert (else the last)."""
    first = next((r for r in runs if r.spec.role == "base"), runs[0])
    experts = [r for r in runs if r.spec.role == "expert"]
    return first, (experts or list(runs))[-1]


def read_loss(path: Path) -> list[tuple[float, float]]:
    """Return (step, loss) pairs of a JSONL training log; broken lines and those without both are skipped.

    A log may end in half a line, because training may be killed at any moment; that must not cost the report.
    """
    points: list[tuple[float, float]] = []
    if not path.is_file():
        return points
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            step, loss = (_number(row.get(k)) for k in ("step", "loss")) if isinstance(row, dict) else (None, None)
            if step is not None and loss is not None:
                points.append((step, loss))
    return points


def columns_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return every column that some row has, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))
