"""From jobs to outcomes: what may be painted, and what becomes of what was painted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vsre.repaint.alike_pictures import dhash
from vsre.repaint.canvas import is_blank
from vsre.repaint.outcome import Outcome
from vsre.repaint.painter import Painted, Painter, PaintJob, Refused, Vocabulary, paint_all
from vsre.repaint.safety import UNSAFE, SafetyChecker
from vsre.repaint.verify import Checked, Verifier, check_many, kept_of, policy_of
from vsre.sources.images import load_image
from vsre.sources.protocols import image_names

HELD_OUT_CAPTION = "the caption stands in a held-out split"
HELD_OUT_IMAGE = "the source picture stands in a held-out split"
ONE_COLOUR = "the picture has one colour"


def paint_allowed(painter: Painter, vocabulary: Vocabulary, jobs: Sequence[PaintJob]) -> list[Painted | Refused]:
    """One result per job, in their order; what is held out is refused before the painter sees it."""
    refused = {
        index: Refused(job, why) for index, job in enumerate(jobs) if (why := _held_out(job, vocabulary)) is not None
    }
    painted = iter(paint_all(painter, [job for index, job in enumerate(jobs) if index not in refused]))
    return [refused[index] if index in refused else next(painted) for index in range(len(jobs))]


def _held_out(job: PaintJob, vocabulary: Vocabulary) -> str | None:
    if job.triplet.caption in vocabulary.captions:
        return HELD_OUT_CAPTION
    return HELD_OUT_IMAGE if image_names(job.triplet) & vocabulary.images else None


@dataclass(frozen=True)
class Judge:
    """Checks what was painted: whether it is a picture, whether it is safe, whether it shows what was asked for.

    Without a verifier or a safety checker, that question stays open.
    """

    verifier: Verifier | None = None
    safety: SafetyChecker | None = None

    def judged(
        self, results: Sequence[Painted | Refused], licences: Sequence[str | None], started: float
    ) -> list[Outcome]:
        """One outcome per result, in their order. `licences` are those of the source pictures; `started` is when
        painting began, in seconds of `time.perf_counter`: the time since then is divided evenly among the results."""
        pictures = [
            replace(result, notes={**result.notes, **({"source_licence": licence} if licence else {})})
            for result, licence in zip(results, licences, strict=True)
            if isinstance(result, Painted)
        ]
        checked = check_many(pictures, self.verifier) if self.verifier is not None else [[] for _ in pictures]
        scores = (
            self.safety.scores([p.image for p in pictures]) if self.safety is not None else [None for _ in pictures]
        )
        looked_at = iter(zip(pictures, checked, scores, strict=True))
        outcomes = [
            Outcome(result.job, "refused", result.reason, pixels=result.pixels)
            if isinstance(result, Refused)
            else self._outcome(*next(looked_at))
            for result in results
        ]
        seconds = (time.perf_counter() - started) / max(len(results), 1)
        return [replace(outcome, seconds=seconds) for outcome in outcomes]

    def _outcome(self, painted: Painted, checked: Sequence[Checked], score: float | None) -> Outcome:
        image = load_image(painted.image, name=painted.job.id)
        checker = self.safety.spec.name if self.safety is not None else None
        outcome = Outcome(painted.job, "painted", None, painted, "ok", dhash(image), score, checker)
        if self.verifier is not None:
            kept = kept_of(painted, checked, self.verifier.name, policy_of(self.verifier))
            if isinstance(kept, Painted):
                outcome = replace(outcome, painted=kept)
            else:
                notes = {"verifier": self.verifier.name, "verdicts": [c.row() for c in checked]}
                turned_down = replace(painted, notes={**painted.notes, **notes})
                outcome = replace(outcome, painted=turned_down, status="rejected", reason=kept.reason)
        if self.safety is not None and score is not None and score > self.safety.spec.at_most:
            outcome = replace(outcome, status="rejected", reason=UNSAFE)
        if is_blank(image):
            outcome = replace(outcome, status="rejected", reason=ONE_COLOUR, pixels="one colour")
        return outcome
