"""From answers to figures, the same for every benchmark: how an answer becomes a choice, and what it is compared with.

A *reading* says which option was chosen: the benchmark's own rule for text, ours, or the likelihood of options under
three normalisations. Each goes through the benchmark's own aggregate, and so do the floors: chance, and the best
constant answers, over all questions and for each kind of them, chosen on the test's own answers. Wrong, unanswered and
errored are different things: unanswered is not right, an error counts only among the errors.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vsre.benchmarks.benchmark import GENERATE, LIKELIHOOD, Benchmark, Replies, Right
from vsre.benchmarks.item import Item
from vsre.benchmarks.reading import read_option
from vsre.benchmarks.shares import Share, Shares
from vsre.diagnose.bootstrap import Figure
from vsre.diagnose.metrics import ERROR_SHARE
from vsre.diagnose.replies import Reply, Score

Choices = dict[str, int | None]
"""The option chosen for each item, by key; None for unanswered. Items without a usable reply are absent."""


@dataclass(frozen=True)
class Reading:
    """`way` is how items must have been asked; `rank` scores an option, None if text is read."""

    way: str
    about: str
    rank: Callable[[Score], float] | None = None


CONSTANT_FLOORS = ("majority", "majority_text", "majority_by_category")
"""The floors that give many questions the same answer; not every benchmark has all of them."""

READINGS: dict[str, Reading] = {
    "rule": Reading(GENERATE, "the benchmark's own rule for the generated text"),
    "reading": Reading(GENERATE, "our reading of the generated text"),
    "letters": Reading(GENERATE, "the likeliest of the options' names after the same prompt", lambda s: s.logp),
    "likelihood": Reading(
        LIKELIHOOD, "the largest mean log-likelihood of an option's tokens and the end token", lambda s: s.mean_with_end
    ),
    "likelihood_mean": Reading(LIKELIHOOD, "the largest mean log-likelihood of an option's tokens", lambda s: s.mean),
    "likelihood_sum": Reading(LIKELIHOOD, "the largest log-likelihood of a whole option", lambda s: s.logp),
}


def choose(reading: str, benchmark: Benchmark, item: Item, reply: Reply) -> tuple[bool, int | None]:
    """(whether the reply can be read this way, the chosen option or None for unanswered)."""
    if reply.error is not None:
        return False, None
    rank = READINGS[reading].rank
    if rank is not None:
        if len(reply.scores) != len(item.options):
            return False, None
        try:
            ranked = [rank(score) for score in reply.scores]
        except ValueError:  # an engine that cannot give the likelihood of ending
            return False, None
        if not all(map(math.isfinite, ranked)):
            return False, None
        return True, max(range(len(ranked)), key=ranked.__getitem__)
    if reply.text is None:
        return False, None
    if reading == "rule":
        return (False, None) if benchmark.read is None else (True, benchmark.read(reply.text, item))
    return True, read_option(reply.text, item)


def score(benchmark: Benchmark, items: Sequence[Item], replies: Replies, *, seed: int = 0) -> dict[str, Any]:
    """All figures, ready for JSON; each figure is {"value", "low", "high", "n"} with a 95 % interval over pictures.

    `official` is the benchmark's own score and `official_by` the reading it comes from; `readings` has that and every
    other reading of what was asked; `floor` what guessers get; `missing` why something is missing. Items whose answer
    is withheld are asked but not scored (`unscored`).
    """
    known = [item for item in items if item.answer is not None]
    shares = Shares(known, seed=seed)
    readings: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, reading in READINGS.items():
        if reading.way not in replies or (name == "rule" and benchmark.read is None):
            continue
        choices: Choices = {}
        for item in known:
            reply = replies[reading.way].get(item.key)
            if reply is None:
                continue
            usable, choice = choose(name, benchmark, item, reply)
            if usable:
                choices[item.key] = choice
        if choices:
            readings[name] = {
                "way": reading.way,
                "about": benchmark.rule if name in benchmark.official else reading.about,
                "official": name in benchmark.official,
                **_figures(benchmark, known, choices, shares),
            }
        elif known:
            missing[name] = _why(reading, replies[reading.way])
    if items and not known:
        missing["readings"] = "the answers of this split are kept back: the benchmark's own server scores them"
    for name in benchmark.official:
        if READINGS[name].way not in replies:
            missing.setdefault(name, f"not asked: mode {READINGS[name].way} was not run")
    official = next((name for name in benchmark.official if name in readings), None)
    errors, reasons = _errors(replies)
    asked = sum(len(by_key) for by_key in replies.values())
    gaps = benchmark.gaps(items)
    return {
        "n": len(known),
        "n_groups": len({item.group for item in known}),
        "n_images": len({item.picture.id for item in known}),
        "unscored": len(items) - len(known),
        "official_by": official,
        "official": readings[official]["figures"] if official else None,
        "readings": readings,
        "points": list(benchmark.points),
        "floor": floors(benchmark, known, shares),
        "gaps": gaps,
        "asked": asked,
        "errors": errors,
        "error_reasons": reasons,
        "missing": missing,
        "warnings": _warnings(errors, asked, gaps, readings),
    }


def _figures(benchmark: Benchmark, items: Sequence[Item], choices: Choices, shares: Shares) -> dict[str, Any]:
    right = {i.key: float(choices[i.key] == i.answer) for i in items if i.key in choices}
    read = {key: choice is not None for key, choice in choices.items()}
    categories = dict.fromkeys(item.category for item in items)
    return {
        "figures": _ready(benchmark.aggregate(items, right, shares)),
        "answered": shares.mean((i, float(read[i.key])) for i in items if i.key in read).figure(),
        "accuracy_of_answered": shares.mean((i, right[i.key]) for i in items if read.get(i.key)).figure(),
        "by_category": {
            name: _ready(benchmark.aggregate([i for i in items if i.category == name], right, shares))
            for name in (categories if len(categories) > 1 else ())
        },
    }


def floors(benchmark: Benchmark, items: Sequence[Item], shares: Shares) -> dict[str, Any]:
    """What guessers score that see no picture: figures by the benchmark's aggregate.

    `chance` picks evenly among the options. `majority` always names the same place (a letter), `majority_text` always
    says the same thing, and picks evenly if no option says it. `majority_by_category`, if there are several kinds of
    questions, uses the better of the two for each kind: the best overall constant would be far too low a floor for a
    task whose answers differ from the others'. Each is the one with the most questions right on these very items.
    """
    if not items:
        return {}
    even = {item.key: 1 / len(item.options) for item in items}
    floor: dict[str, Any] = {"chance": _values(benchmark, items, even, shares)}
    for name, guess in (("majority", _by_place(items)), ("majority_text", _by_word(items))):
        if guess is not None:
            floor[name] = {"answer": guess.answer, **_values(benchmark, items, guess.right, shares)}
    kinds: dict[str, list[Item]] = {}
    for item in items:
        kinds.setdefault(benchmark.kind(item), []).append(item)
    if len(kinds) > 1:
        best = {kind: _by_place_or_word(some) for kind, some in kinds.items()}
        right = {key: value for guess in best.values() for key, value in guess.right.items()}
        answers = {kind: guess.answer for kind, guess in best.items()}
        floor["majority_by_category"] = {"answer": answers, **_values(benchmark, items, right, shares)}
    return floor


@dataclass(frozen=True)
class _Guess:
    """What is always answered, and the probability that it is right for each item."""

    answer: str
    right: Right


def _by_place(items: Sequence[Item]) -> _Guess | None:
    """The commonest place; None if we chose the right option's place, so that it says nothing."""
    if all(item.says for item in items):
        return None
    places = Counter(item.names[item.answer] for item in items if item.answer is not None)
    place = max(places, key=lambda name: (places[name], name))
    return _Guess(place, {i.key: float(i.answer is not None and i.names[i.answer] == place) for i in items})


def _by_word(items: Sequence[Item]) -> _Guess:
    word = _best_word(items)
    said = {i.key: float(i.statements[i.answer or 0] == word) for i in items if word in i.statements}
    return _Guess(word, {item.key: said.get(item.key, 1 / len(item.options)) for item in items})


def _by_place_or_word(items: Sequence[Item]) -> _Guess:
    place, word = _by_place(items), _by_word(items)
    return place if place is not None and sum(place.right.values()) > sum(word.right.values()) else word


def _best_word(items: Sequence[Item]) -> str:
    """The best thing to say every time: right if it is the answer, a guess if no option says it."""
    gain: dict[str, float] = {}
    for item in items:
        for index, word in enumerate(item.statements):
            gain[word] = gain.get(word, 0.0) + float(index == item.answer) - 1 / len(item.options)
    return max(gain, key=lambda word: (gain[word], word))


def _values(benchmark: Benchmark, items: Sequence[Item], right: Right, shares: Shares) -> dict[str, float | None]:
    return {name: f["value"] for name, f in _ready(benchmark.aggregate(items, right, shares)).items()}


def _ready(shares: Mapping[str, Share]) -> dict[str, Figure]:
    return {name: share.figure() for name, share in shares.items() if share}


def _errors(replies: Replies) -> tuple[int, dict[str, int]]:
    counts = Counter(r.error for by_key in replies.values() for r in by_key.values() if r.error is not None)
    return counts.total(), dict(counts.most_common(5))


def _why(reading: Reading, replies: Mapping[str, Reply]) -> str:
    if replies and all(reply.error is not None for reply in replies.values()):
        return "every question ended in an error"
    return "the engine gives no likelihoods" if reading.rank else "the engine gives no text"


def _warnings(errors: int, asked: int, gaps: Mapping[str, int], readings: Mapping[str, Any]) -> list[str]:
    told = [f"{what}: {n}" for what, n in gaps.items() if n]
    if asked and errors > ERROR_SHARE * asked:
        told.append(
            f"{errors} of {asked} questions ({100 * errors / asked:.1f} %) ended in an error and count nowhere: the "
            "figures are those of the rest, which may be easier or harder."
        )
    answered = readings.get("reading", {}).get("answered", {}).get("value")
    if answered is not None and answered < 0.5:
        told.append(f"only {100 * answered:.0f} % of the answers could be read: look at the samples.")
    return told
