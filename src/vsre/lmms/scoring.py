"""What lmms-eval's tasks call: a question's prompt, what its answer says, and the figures over all answers.

Answers are read and figures computed by the code of `vsre.diagnose`, so that the scores are the same. lmms-eval passes
every aggregation the values that `process_results` gave for its metric; all are built from the same row, a sample of
`vsre.diagnose.samples` without its texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vsre.diagnose.metrics import Answered
from vsre.diagnose.replies import Reply
from vsre.diagnose.samples import ERROR, SCHEMA, Asked, to_sample
from vsre.errors import VsreError
from vsre.rewrite import FORMATS, Question, Template
from vsre.triplets import Triplet

FAILED = "⟦✗⟧"
"""What `--model vsre` answers if it cannot: no reader finds an answer in it, and here it is an error."""

COLUMNS = (
    *("id", "prompt", "answer", "truth", "format", "style", "template", "pack"),
    *("subject", "relation", "object", "meta_category", "caption", "key", "image_id"),
)
"""What a question must have; its picture is fetched by `image_id`."""

_KEPT = ("pack", "template", "key", "image_id", "relation", "meta_category", "truth", "reading", "correct")
_RESAMPLES = 1000


@dataclass(frozen=True)
class Heard:
    """A sample as a metric's value; in lmms-eval's log of samples it shows as its reading."""

    row: Mapping[str, Any]

    def __str__(self) -> str:
        return str(self.row["reading"])


class Score(float):
    """A figure that knows its samples, so that a group's is computed from all its tasks' samples, not their means."""

    rows: Sequence[Mapping[str, Any]]

    def __new__(cls, value: float | None, rows: Sequence[Mapping[str, Any]]) -> Score:
        score = super().__new__(cls, math.nan if value is None else value)
        score.rows = rows
        return score


def process_docs(docs: Any) -> Any:
    """The questions of a task (a `datasets.Dataset`), unchanged; raises VsreError naming columns that are missing."""
    missing = [name for name in COLUMNS if name not in docs.column_names]
    if missing:
        raise VsreError(f"Not a test set of `vsre testset`: the columns {', '.join(missing)} are missing.")
    return docs


def short_docs(docs: Any) -> Any:
    """The questions that want a short answer."""
    return _of_style(docs, "short")


def full_docs(docs: Any) -> Any:
    """The questions whose answer repeats the statement: they may use more tokens, which lmms-eval sets per task."""
    return _of_style(docs, "full")


def _of_style(docs: Any, style: str) -> Any:
    return process_docs(docs).select([row for row, found in enumerate(docs["style"]) if found == style])


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return doc["prompt"]


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return doc["answer"]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The values of one question's metrics, from the answer in `results`, if several templates are asked."""
    row = _row(doc, results[0])
    heard = Heard(row)
    return {**dict.fromkeys(FIGURES, heard), template_metric(doc["template"]): heard, "acc_t": _told(row)}


def process_one_wording(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The same if one template is asked: nothing that compares wordings."""
    row = _row(doc, results[0])
    names = [name for name, known in FIGURES.items() if not known.several]
    return {**dict.fromkeys(names, Heard(row)), "acc_t": _told(row)}


def _row(doc: Mapping[str, Any], answer: str | None) -> dict[str, Any]:
    sample = to_sample("", _asked(doc), _reply(answer))
    return {name: sample[name] for name in _KEPT}


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its score under the names that lmms-eval uses for standard errors and comparison with a baseline.

    An error has none: it counts nowhere.
    """
    right = row["correct"]
    return row if right is None else row | {"score": float(right), "acc_t": float(right)}


def _reply(answer: str | None) -> Reply:
    answer = answer or ""
    return Reply(error="the engine could not answer") if answer.strip() == FAILED else Reply(answer)


def _asked(doc: Mapping[str, Any]) -> Asked:
    """The question as `vsre.diagnose` knows it; what a reading does not need is left empty."""
    triplet = Triplet(
        image_id=doc["image_id"],
        image_name="",
        subject=doc["subject"],
        relation=doc["relation"],
        object=doc["object"],
        caption=doc["caption"],
        label=doc["truth"],
        split="",
        origin="",
    )
    template = Template(doc["template"], "", FORMATS[doc["format"]], doc["style"], needs_boxes=False, pack=doc["pack"])
    question = Question(
        key=doc["key"],
        image_id=doc["image_id"],
        template=doc["template"],
        pack=doc["pack"],
        prompt=doc["prompt"],
        answer=doc["answer"],
        truth=doc["truth"],
        format=doc["format"],
        split="",
    )
    return Asked(triplet, template, question)


def template_metric(template: str) -> str:
    return f"by_template/{template}"


@dataclass(frozen=True)
class Over:
    """Figures of samples: those over templates, and of their consistency."""

    data: Answered
    errors: int

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], *, resamples: int) -> Over:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
        return cls(Answered(table, resamples=resamples), sum(row["reading"] == ERROR for row in rows))

    def mean(self, name: str, what: str = "value") -> float | None:
        """A figure's mean over templates, or the `low` or `high` end of its 95 % interval over images."""
        return self._all[name][what]

    def spread(self, what: str) -> float | None:
        return self._all.get("acc_t_over_templates", {}).get(what)

    @property
    def _all(self) -> dict[str, Any]:
        return self.data.over_templates(np.arange(len(self.data.templates)))

    def consistency(self, name: str) -> Any:
        return self.data.consistency()[name]["value"]


@dataclass(frozen=True)
class Figure:
    """One of a task's metrics: how it is computed, and which direction is better (None if neither is)."""

    of: Callable[[Over], Any]
    higher_is_better: bool | None
    several: bool = False
    """Only if several templates are asked."""
    resamples: int = 1


FIGURES: dict[str, Figure] = {
    "acc_t": Figure(lambda over: over.mean("acc_t"), True),
    "ci95_low": Figure(lambda over: over.mean("acc_t", "low"), True, resamples=_RESAMPLES),
    "ci95_high": Figure(lambda over: over.mean("acc_t", "high"), True, resamples=_RESAMPLES),
    "answered": Figure(lambda over: over.mean("answered"), True),
    "yes_acc": Figure(lambda over: over.mean("yes_acc"), True),
    "no_acc": Figure(lambda over: over.mean("no_acc"), True),
    "bias": Figure(lambda over: over.mean("absolute_bias"), False),
    "signed_gap": Figure(lambda over: over.mean("bias"), None),
    "consistency": Figure(lambda over: over.consistency("pairwise"), True, several=True),
    "all_agree": Figure(lambda over: over.consistency("all_agree"), True, several=True),
    "lowest_template": Figure(lambda over: over.spread("min"), True, several=True),
    "highest_template": Figure(lambda over: over.spread("max"), True, several=True),
    "errors": Figure(lambda over: over.errors, False),
}
"""As in a run's metrics.json: `bias` is the mean over templates of |yes_acc - no_acc|, `signed_gap` of the difference
itself. `ci95_*` bounds acc_t. No name is contained in another: lmms-eval's groups find them by substring."""


def figure(name: str, rows: Iterable[Mapping[str, Any]]) -> Score:
    """One of FIGURES over samples; NaN if it applies to none of them."""
    rows = list(rows)
    return Score(FIGURES[name].of(Over.of(rows, resamples=FIGURES[name].resamples)), rows)


def of_task(name: str) -> Callable[[Sequence[Any]], Score]:
    """The aggregation of a task's metric: a function of the values that `process_results` gave."""

    def aggregate(items: Sequence[Any]) -> Score:
        return figure(name, [item.row if isinstance(item, Heard) else item for item in items])

    return aggregate


def of_group(name: str) -> Callable[[Sequence[Score], Sequence[int], bool], Score]:
    """The aggregation of a group's metric: over the samples of its tasks, which divide the wordings among them."""

    def aggregate(scores: Sequence[Score], sizes: Sequence[int], weight_by_size: bool) -> Score:
        return figure(name, [row for score in scores for row in score.rows])

    return aggregate
