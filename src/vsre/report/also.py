"""Further test sets besides a model's own: its Test-G on them, and what the sets are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from vsre.diagnose.bootstrap import Bootstrap, Figure
from vsre.diagnose.metrics import HEADLINES
from vsre.report.compare import ANSWERS, RESAMPLES, mean_accuracy, signed
from vsre.report.inputs import Estimate, ReportRun, Run, open_run

SHOWN = "test_g"
"""The figure of the table."""


def less_own(own: Run, further: Run, alike: Mapping[str, str], *, seed: int = 0) -> dict[str, Figure]:
    """Return, by headline, acc_t on a further set minus that on the run's own, over the scenes that both show.

    `alike` maps an image_id of the further set to that of the own set's picture of the same scene. Scenes are resampled
    jointly for both; `n` counts the questions about each. A headline that was not asked alike in both is left out.
    """
    found = {}
    ids, ours = pa.array(list(alike)), pa.array(list(alike.values()))
    for headline, pack in HEADLINES.items():
        old, new = (run.samples(ANSWERS, pads.field("pack") == pack) for run in (own, further))
        if old is None or new is None:
            continue
        new = new.set_column(
            new.schema.get_field_index("image_id"), "image_id", ours.take(pc.index_in(new["image_id"], ids))
        )
        images = pc.unique(new["image_id"]).filter(pc.is_in(pc.unique(new["image_id"]), pc.unique(old["image_id"])))
        old, new = (t.filter(pc.is_in(t["image_id"], images)).combine_chunks() for t in (old, new))
        if not len(images) or len(old) != len(new):
            continue
        bootstrap = Bootstrap(len(images), resamples=RESAMPLES, seed=seed)
        less = mean_accuracy(new, images, bootstrap).minus(mean_accuracy(old, images, bootstrap))
        found[headline] = less.figure(0, len(new))
    return found


def open_also(run: Run) -> dict[str, Run]:
    """Open a model's runs on further sets, by the set's name."""
    return {
        name: open_run(ReportRun(name=run.name, folder=folder, role=run.spec.role))
        for name, folder in run.spec.also.items()
    }


def also_rows(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return Test-G of every model on its own test set and on each further one, and a row about each further set.

    In %, with the interval and n; if both sets show the same scenes, also the difference. Empty without such sets.
    """
    opened = [(run, open_also(run)) for run in runs if run.spec.also]
    figures = [
        {"model": run.name, "own test set": _cell(run.estimate(SHOWN, "acc_t"))}
        | {name: _against_own(further) for name, further in sets.items()}
        for run, sets in opened
    ]
    about = {name: further for _, sets in opened for name, further in sets.items()}
    return figures, [_about(name, further) for name, further in about.items()]


def also_json(run: Run) -> dict[str, Any]:
    """Return {set: {headline: figure, "less_own": ...}} for programs; empty without further sets."""
    return {
        name: {headline: further.section(headline).get("acc_t") for headline in HEADLINES}
        | {"less_own": further.section("also").get("less_own", {})}
        for name, further in open_also(run).items()
    }


def _cell(e: Estimate) -> str:
    if e.value is None:
        return "–"
    around = "" if e.low is None or e.high is None else f" [{100 * e.low:.1f}, {100 * e.high:.1f}]"
    return f"{100 * e.value:.1f}{around}" + ("" if e.n is None else f", n {e.n:,}")


def _against_own(further: Run) -> str:
    less = further.estimate("also", "less_own", SHOWN)
    text = _cell(further.estimate(SHOWN, "acc_t"))
    if less.value is None or less.low is None or less.high is None:
        return text
    return f"{text}; {signed(less.value)} [{signed(less.low)}, {signed(less.high)}] on the same scenes"


def _about(name: str, further: Run) -> dict[str, Any]:
    about = further.section("also")
    how = about.get("how", {})
    counts = about.get("objects", {})
    trained = {
        what: f"{about[f'{what}_in_train']:,} of {about[what]:,}" for what in ("captions", "classes") if what in about
    }
    return {
        "set": name,
        "world": f"{how.get('split')}, drawn as {how.get('test_as', ['?'])[0]}",
        "art": how.get("test_style"),
        "things in a picture": ", ".join(f"{n} in {pictures:,}" for n, pictures in counts.items()),
        "pictures": further.metrics.get("n_images"),
        "statements": further.metrics.get("n_triplets"),
        **{f"{what} in the train split": share for what, share in trained.items()},
    }
