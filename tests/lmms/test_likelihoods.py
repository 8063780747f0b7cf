"""Losses of options, and tasks in which some have none: what needs no lmms-eval of `--model vsre`'s likelihoods."""

from __future__ import annotations

import pytest

from vsre.diagnose import Reply, Score
from vsre.errors import VsreError
from vsre.lmms.likelihoods import Failures, losses

GOOD = Reply("No", (Score(-4.0, 1, end=-2.0), Score(-1.0, 1, end=-1.0)))
BAD = Reply(error="out of memory")


def tally(**counts: tuple[int, int]) -> Failures:
    """Of each task (failed, answered) questions."""
    failures = Failures()
    for task, (failed, answered) in counts.items():
        for reply in [BAD] * failed + [GOOD] * answered:
            failures.add(task, reply, losses(reply, 2))
    return failures


def test_losses_are_means_over_tokens_and_the_end() -> None:
    assert losses(GOOD, 2) == [3.0, 1.0]


@pytest.mark.parametrize(
    "reply",
    [
        BAD,
        Reply("No"),  # no likelihoods
        Reply("No", GOOD.scores[:1]),  # not of every option
        Reply("No", (Score(float("nan"), 1, end=0.0), GOOD.scores[1])),  # the smallest of numbers, to numpy's argmin
        Reply("No", (Score(float("-inf"), 1, end=0.0), GOOD.scores[1])),
    ],
)
def test_a_question_without_every_loss_has_none(reply: Reply) -> None:
    assert losses(reply, 2) is None


def test_a_task_with_more_than_a_hundredth_failed_is_refused() -> None:
    with pytest.raises(VsreError, match=r"^b: 2 of 199 likelihood questions could not be answered \(out of memory\)"):
        tally(a=(0, 1000), b=(2, 197)).check()
    with pytest.raises(VsreError, match=r"up to 1 % is tolerated\. Fix what the reason names"):
        tally(a=(1, 1)).check()


def test_fewer_are_let_pass_and_told() -> None:
    failures = tally(a=(0, 5), b=(2, 198))
    failures.check()
    assert failures.told() == [
        "b: 2 of 200 likelihood questions could not be answered and counted as the first option, right wherever that "
        "is the right one (out of memory)"
    ]


def test_what_went_wrong_without_an_error_is_named() -> None:
    failures = Failures()
    failures.add("a", Reply("No"), None)
    with pytest.raises(VsreError, match="an option's likelihood is missing or no number"):
        failures.check()
