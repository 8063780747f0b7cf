"""Try settings on a few rows and look: a contact sheet, and how often a verifier finds what was asked for.

OUT/sweep.html       every picture with its source, its statements and the verdicts
OUT/sweep.png        the same at a glance
OUT/sweep.json       the figures of each variant, and every cell
OUT/pictures/*.png   the pictures in full, by job
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.rates import share
from vsre.repaint.diffusion import DiffusionPainter
from vsre.repaint.judge import paint_allowed
from vsre.repaint.painter import SETTINGS, Painted, Painter, PaintJob, Refused, Setting, Vocabulary
from vsre.repaint.pipelines import LOADING, Pipelines
from vsre.repaint.plan import checked_settings, job_seed, survey, taken
from vsre.repaint.presets import DiffusionConfig
from vsre.repaint.sheet import Cell, Column, Row, write_sheet
from vsre.repaint.verify import Checked, Verifier, check_many
from vsre.triplets import Triplet, read_triplets


@dataclass(frozen=True)
class Variant:
    """One way of painting: its label, the values that it tries, and what makes the painter when its turn comes. `done`
    is called when the last of its pictures is painted."""

    label: str
    values: Mapping[str, Any]
    make: Callable[[Vocabulary], Painter]
    done: Callable[[], None] = lambda: None


def grid(
    models: Mapping[str, DiffusionConfig],
    setting: Setting,
    *,
    steps: Sequence[int] = (),
    guidance: Sequence[float] = (),
    strength: Sequence[float] = (),
    dilation: Sequence[float] = (),
) -> list[Variant]:
    """Every combination of the given values, for each model; what is not given stays as in the model's configuration.
    Variants of one model follow one another and share what is in memory.

    Raises VsreError, before anything is loaded, for a combination that cannot be painted and for a value that the
    setting does not have.
    """
    if strength and setting == "t2i":
        raise VsreError("t2i does not start from a photo, so it has no strength. Leave it out.")
    if dilation and setting != "inpaint":
        raise VsreError(f"{setting} has no mask, so it has no dilation. Leave it out.")
    variants: list[Variant] = []
    for name, config in models.items():
        base = config.only([setting])
        made = []
        for values in _combinations(steps=steps, guidance=guidance, strength=strength, dilation=dilation):
            numbers = {k: v for k, v in values.items() if k != "dilation"}
            changed = base.with_numbers(**numbers)
            if "dilation" in values:
                changed = changed.changed(mask={"dilation": values["dilation"]})
            made.append((values, changed))
        variants += _sharing(name, made)
    return variants


def _combinations(**axes: Sequence[float]) -> Iterator[dict[str, float]]:
    given = {name: values for name, values in axes.items() if values}
    for combination in product(*given.values()):
        yield dict(zip(given, combination, strict=True))


def _sharing(name: str, made: Sequence[tuple[dict[str, float], DiffusionConfig]]) -> Iterator[Variant]:
    """Variants of one model, with one set of pipelines that is dropped after the last of them."""
    shared = Pipelines(made[0][1])
    assert len({json.dumps(config.model_dump(mode="json", include=LOADING)) for _, config in made}) == 1

    def maker(config: DiffusionConfig) -> Callable[[Vocabulary], Painter]:
        return lambda vocabulary: DiffusionPainter(vocabulary, config, pipelines=shared)

    for index, (values, config) in enumerate(made):
        label = ", ".join([name, *(f"{key} {value:g}" for key, value in values.items())])
        last = index == len(made) - 1
        yield Variant(label, {"model": name, **values}, maker(config), shared.release if last else lambda: None)


@dataclass(frozen=True)
class _Outcome:
    """What became of one row in one variant."""

    result: Painted | Refused
    checked: list[Checked]

    @property
    def passed(self) -> bool:
        return bool(self.checked) and all(c.agrees for c in self.checked)


def sweep(
    triplets_path: Path | str,
    out: Path | str,
    variants: Sequence[Variant],
    *,
    setting: str = "t2i",
    rows: int = 8,
    seed: int = 0,
    verifier: Verifier | None = None,
    allow_held_out: bool = False,
    held_out: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Paint `rows` triplets, spread evenly over the set, in every variant; returns (and writes to sweep.json) the
    figures. "t2i" paints the caption true, whatever the label. A row starts from the same noise in every variant, so
    two of its pictures differ only by what differs between their variants.

    A picture passes if the verifier confirms every statement about it; the rate is over the pictures painted, with
    Wilson's 95 % interval, and refused jobs are counted apart. Without a verifier there is no rate.

    Raises VsreError if there is nothing to try, for a setting that a painter does not have, and like `repaint` for what
    is held out.
    """
    source, out = Path(triplets_path), Path(out)
    if rows < 1 or not variants:
        raise VsreError("A sweep needs at least one row and one variant.")
    vocabulary, count, _ = survey(source, allow_held_out=allow_held_out, held_out=held_out)
    if setting not in SETTINGS:
        raise VsreError(f"{setting!r} is not one of {', '.join(SETTINGS)}.")
    limit = min(rows, count)
    chosen = [t for i, t in enumerate(read_triplets(source)) if taken(i, count=count, limit=limit)]
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    outcomes: list[list[_Outcome]] = []
    figures = []
    for variant in variants:
        painter = variant.make(vocabulary)
        [of_painter] = checked_settings([setting], painter)
        jobs = [_job(triplet, of_painter, painter, seed) for triplet in chosen]
        column = _looked_at(paint_allowed(painter, vocabulary, jobs), verifier)
        for outcome in column:
            if isinstance(outcome.result, Painted):
                _write_picture(out, outcome.result)
        outcomes.append(column)
        figures.append(_figures(variant, painter, of_painter, column, verified=verifier is not None))
        variant.done()
        if progress:
            progress(len(outcomes) * limit, len(variants) * limit)
    summary = {
        "setting": setting,
        "rows": limit,
        "seed": seed,
        "verifier": verifier.name if verifier is not None else None,
        "variants": figures,
        "cells": [
            _cell_row(variant, outcome)
            for variant, column in zip(variants, outcomes, strict=True)
            for outcome in column
        ],
    }
    (out / "sweep.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_sheet(
        out,
        f"{setting}: {limit} rows, {len(variants)} variants",
        [Column(shown_label(figure), _rate_text(figure)) for figure in figures],
        [Row(triplet, [_cell(column[index]) for column in outcomes]) for index, triplet in enumerate(chosen)],
    )
    return summary


def _job(triplet: Triplet, setting: Setting, painter: Painter, seed: int) -> PaintJob:
    truth = True if setting == "t2i" else None
    own = job_seed(seed, triplet.key, setting, 0)
    return PaintJob(triplet, setting, own, painter.name, painter.parameters_for(setting), truth, noise=own)


def _looked_at(results: Sequence[Painted | Refused], verifier: Verifier | None) -> list[_Outcome]:
    if verifier is None:
        return [_Outcome(result, []) for result in results]
    checked = iter(check_many([result for result in results if isinstance(result, Painted)], verifier))
    return [_Outcome(result, next(checked) if isinstance(result, Painted) else []) for result in results]


def _figures(
    variant: Variant, painter: Painter, setting: Setting, column: Sequence[_Outcome], *, verified: bool
) -> dict[str, Any]:
    painted = sum(isinstance(o.result, Painted) for o in column)
    passed = sum(o.passed for o in column)
    statements = Counter(_AGREES[c.agrees] for o in column for c in o.checked)
    refused = Counter(o.result.reason for o in column if isinstance(o.result, Refused))
    figures: dict[str, Any] = {
        "label": variant.label,
        "values": dict(variant.values),
        "painter": {"name": painter.name, **painter.parameters_for(setting)},
        "pictures": painted,
        "refused": dict(refused.most_common()),
    }
    notes = [o.result.notes for o in column if isinstance(o.result, Painted)]
    if notes and "strength_run" in notes[0]:
        figures["strength_run"] = notes[0]["strength_run"]  # the same in all: steps and strength are the variant's
    if verified:
        figures |= {"passed": passed, "statements": {name: statements[name] for name in _AGREES.values()}}
        figures["pass_rate"] = share(passed, painted)
    return figures


_AGREES = {True: "confirmed", False: "contradicted", None: "undecided"}


def shown_label(figure: Mapping[str, Any]) -> str:
    """A variant's label, with the strength that its steps are actually run at."""
    run = figure.get("strength_run")
    return str(figure["label"]) if run is None else f"{figure['label']} (run at strength {run:.2g})"


def _rate_text(figure: Mapping[str, Any]) -> str:
    refused = sum(figure["refused"].values())
    aside = f", {refused} refused" if refused else ""
    rate = figure.get("pass_rate")
    if rate is None:
        return f"{figure['pictures']} painted{aside}" + ("" if "passed" in figure else ", no verifier")
    return f"{rate['value']:.0%} pass [{rate['low']:.0%}, {rate['high']:.0%}], n {rate['n']}{aside}"


def _cell(outcome: _Outcome) -> Cell:
    if isinstance(outcome.result, Refused):
        return Cell(None, (), outcome.result.reason)
    said = _said(outcome.result, outcome.checked)
    return Cell(outcome.result.image, tuple(said))


def _said(painted: Painted, checked: Sequence[Checked]) -> Iterable[tuple[str, str, str]]:
    """(caption, kind, what the verifier made of it) of each statement."""
    if not checked:
        return [(s.caption, s.kind, "") for s in painted.statements]
    return [(c.statement.caption, c.statement.kind, _AGREES[c.agrees]) for c in checked]


def _cell_row(variant: Variant, outcome: _Outcome) -> dict[str, Any]:
    job = outcome.result.job
    row: dict[str, Any] = {
        "variant": variant.label,
        "job": job.id,
        "key": job.triplet.key,
        "source": job.triplet.caption,
    }
    if isinstance(outcome.result, Refused):
        return row | {"refused": outcome.result.reason}
    return row | {
        "prompt": outcome.result.notes.get("prompt"),
        "statements": [{"caption": s.caption, "kind": s.kind, "label": s.label} for s in outcome.result.statements],
        "verdicts": [c.row() for c in outcome.checked],
        "passed": outcome.passed if outcome.checked else None,
    }


def _write_picture(out: Path, painted: Painted) -> None:
    name = painted.triplets()[0].image_name
    (out / "pictures" / name).write_bytes(painted.image)
