"""Likelihoods from a server: of the first token, of all options or none, and never invented."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from fault_server import YES_NO, Request, Send, ask_under, completion, error, say
from hypothesis import given
from hypothesis import strategies as st

from vsre.diagnose import Prompt, Reply
from vsre.diagnose.server_answers import LEAST_MASS, option_scores, read_completion


def top(first: str, logp: float, *others: tuple[Any, Any]) -> dict[str, Any]:
    """Log probabilities in OpenAI's form: two places, the second of no interest."""
    listed = [{"token": token, "logprob": value, "bytes": None} for token, value in ((first, logp), *others)]
    second = {"token": ".", "logprob": -0.1, "top_logprobs": [{"token": "No", "logprob": -0.2}]}
    return {"content": [{"token": first, "logprob": logp, "top_logprobs": listed}, second]}


def scores(logprobs: Any, content: Any = "Yes.", options: tuple[str, ...] = ("Yes", "No"), **fields: Any) -> Any:
    answer = read_completion(json.dumps(completion(content, logprobs=logprobs, **fields)).encode())
    return [pytest.approx(s.logp) for s in option_scores(answer.first, options)]


def test_first_token_likelihoods() -> None:
    replies, engine, requests = ask_under(lambda r: say("Yes.", logprobs=top("Yes", -0.2, ("No", -2.0), ("The", -4.0))))
    (reply,) = replies
    assert [(s.logp, s.tokens, s.end) for s in reply.scores] == [(-0.2, 1, None), (-2.0, 1, None)]
    assert reply.text == "Yes." and reply.p_yes == pytest.approx(1 / (1 + math.exp(-1.8)))
    assert requests[0].body["logprobs"] is True and requests[0].body["top_logprobs"] == 20
    assert engine.notes()["scores"] == {"asked": 1, "listed": 1, "given": 1}
    assert "first token" in engine.notes()["why"]


def test_spellings_of_an_option_are_added_up() -> None:
    """Case and a leading blank make no other answer, in whatever way the blank is written."""
    spelled = [(" yes", -2.0), ("YES", -3.0), ("\u2581Yes", -4.0), ("No", -2.5), ("\u0120no", -3.5)]
    yes = math.log(sum(map(math.exp, (-0.4, -2.0, -3.0, -4.0))))
    no = math.log(math.exp(-2.5) + math.exp(-3.5))
    assert scores(top("Yes", -0.4, *spelled)) == [yes, no]


@pytest.mark.parametrize(
    ("logprobs", "content", "options"),
    [
        (None, "Yes", ("Yes", "No")),
        ({}, "Yes", ("Yes", "No")),
        ({"content": []}, "Yes", ("Yes", "No")),
        ({"content": None}, "Yes", ("Yes", "No")),
        ({"content": [{"token": "Yes", "logprob": -0.1}]}, "Yes", ("Yes", "No")),
        (top("Yes", -0.1, ("The", -4.0)), "Yes", ("Yes", "No")),  # no "No"
        (top("Yes", -0.1, ("N", -3.0), ("Not", -4.0)), "Yes", ("Yes", "No")),  # beginnings and longer words
        (top("In", -0.1, ("Correct", -3.0)), "In the picture", ("Correct", "Incorrect")),
        (top("A", -0.1, ("B", -3.0)), "A. yes", ("A. yes", "B. no")),  # more than one token
        (top("Yes", -0.1, ("No", -9999.0)), "Yes", ("Yes", "No")),  # a stand-in for a missing value
        (top("Yes", -0.1, ("No", None)), "Yes", ("Yes", "No")),
        (top("Yes", -0.1, ("No", float("nan"))), "Yes", ("Yes", "No")),
        (top("Yes", -0.1, ("No", float("-inf"))), "Yes", ("Yes", "No")),
        (top("Yes", 11.2, ("No", 9.0)), "Yes", ("Yes", "No")),  # logits
        (top("Yes", -0.1, ("No", -0.2)), "Yes", ("Yes", "No")),  # these add up to more than one
        (top("Yes", -0.1, ("No", True)), "Yes", ("Yes", "No")),
        (top("Yes", -0.1, (7, -3.0)), "Yes", ("Yes", "No")),
        (top("Okay", -0.1, ("Yes", -3.0), ("No", -3.0)), "Yes", ("Yes", "No")),  # not where the answer begins
        (top("Yes", -0.1, ("No", -3.0)), None, ("Yes", "No")),
        (top("Yes", -0.1, ("yes", -3.0)), "Yes", ("Yes", "yes")),  # options that one token cannot tell apart
        ({"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": "No"}]}, "Yes", ("Yes", "No")),
        (["Yes"], "Yes", ("Yes", "No")),
    ],
)
def test_no_likelihood_is_invented(logprobs: Any, content: Any, options: tuple[str, ...]) -> None:
    assert scores(logprobs, content, options) == []


@given(
    st.lists(st.tuples(st.text(max_size=4), st.floats(-12, -2.5)), max_size=8),
    st.lists(st.sampled_from(["Yes", "No", "A", "B"]), min_size=1, max_size=4),
)
def test_all_options_or_none(others: list[tuple[str, float]], options: list[str]) -> None:
    first = {"Yes": -0.5, **dict(others)}
    found = option_scores(first, options)
    there = {token.strip().casefold() for token in first}
    told = len(set(options)) == len(options) and all(option.casefold() in there for option in options)
    mass = sum(
        math.exp(logp) for token, logp in first.items() if token.strip().casefold() in map(str.casefold, options)
    )
    told = told and (len(options) == 1 or mass >= LEAST_MASS)
    assert len(found) == (len(options) if told else 0)
    assert all(s.logp <= 0 and s.tokens == 1 for s in found)


def test_the_older_form_of_likelihoods() -> None:
    older = {"tokens": ["Yes", "."], "token_logprobs": [-0.3, -1.0], "top_logprobs": [{"Yes": -0.3, "No": -1.6}, {}]}
    assert scores(older) == [-0.3, -1.6]
    assert scores({**older, "top_logprobs": None}) == []


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_no_answer(name: str) -> None:
    """The first token of a thought says nothing of the answer, even where it looks like one."""
    listed = top("Yes", -0.2, ("No", -2.0))
    replies, engine, _ = ask_under(lambda r: say("Yes", logprobs=listed, message={name: "Yes, I see a cat."}))
    assert replies[0].text == "Yes" and replies[0].scores == ()
    assert engine.notes()["odd_answers"] == {"thought_aloud": 1}


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("<think>Is it there? No.</think>No", "<think>"),
        ("No, or is it?</think>Yes", "No"),  # a template that writes the <think> itself
        ("No</think>No", "No"),
        ("<think>Let me", "<think>"),
    ],
)
def test_thoughts_in_the_text_are_no_answer(text: str, begins: str) -> None:
    listed = top(begins, -0.1, ("Yes", -3.0), ("No", -3.5))
    replies, engine, _ = ask_under(lambda r: say(text, logprobs=listed))
    assert replies[0].text == text and replies[0].scores == () and replies[0].p_yes is None
    odd = {"thought_aloud": 1} | ({"thoughts_without_answer": 1} if "</think>" not in text else {})
    assert engine.notes()["odd_answers"] == odd
    turns = ask_under(lambda r: say(" Yes. USER: And", logprobs=top(" Yes", -0.1, ("No", -3.0))))[0][0]
    assert len(turns.scores) == 2  # turns played on behind an answer leave its beginning what it is


def test_options_that_an_answer_hardly_begins_with() -> None:
    """Less than one in a hundred for all of them: which one leads says nothing."""
    assert scores(top("The", -0.1, ("Yes", -6.0), ("No", -8.0)), "The cat") == []
    assert scores(top("The", -0.1, ("Yes", -4.5), ("No", -8.0)), "The cat") == [-4.5, -8.0]
    assert scores(top("The", -0.1, ("Yes", -6.0)), "The cat", options=("Yes",)) == [-6.0]  # compared with nothing


@pytest.mark.parametrize(
    "said", ["You are not allowed to request logprobs from this model", "log_probs: not for this model"]
)
def test_likelihoods_that_are_forbidden(said: str) -> None:
    """OpenAI answers its reasoning models' logprobs with 403: that is no word about the key."""

    def plan(request: Request) -> Send | None:
        return error(403, said) if "logprobs" in request.body else say("Yes")

    replies, engine, requests = ask_under(plan, YES_NO, YES_NO)
    assert [(r.text, r.scores, r.error) for r in replies] == [("Yes", (), None)] * 2
    assert [r.body.get("top_logprobs") for r in requests] == [20, 5, None, None]
    assert said in engine.notes()["why"]


def test_a_server_that_refuses_likelihoods() -> None:
    """The prompt is asked again without; later ones do not ask for them, and likelihoods alone are not sent for."""

    def plan(request: Request) -> Send | None:
        return error(400, "logprobs is not supported by this model") if "logprobs" in request.body else say("Yes")

    alone = Prompt("Is it?", ("Yes", "No"), "none")
    replies, engine, requests = ask_under(plan, YES_NO, YES_NO, alone)
    assert [r.text for r in replies] == ["Yes", "Yes", None] and not any(r.scores for r in replies)
    assert replies[2].error == "the server offers no likelihoods"
    assert [r.body.get("top_logprobs") for r in requests] == [20, 5, None, None]
    notes = engine.notes()
    assert "logprobs is not supported by this model" in notes["why"] and notes["sent"]["top_logprobs"] == 0


def test_a_server_with_a_lower_limit() -> None:
    def plan(request: Request) -> Send | None:
        if request.body["top_logprobs"] > 5:
            return error(422, "top_logprobs must be at most 5")
        return say("Yes", logprobs=top("Yes", -0.2, ("No", -2.0)))

    replies, engine, requests = ask_under(plan, YES_NO, YES_NO)
    assert [len(r.scores) for r in replies] == [2, 2] and len(requests) == 3
    assert engine.notes()["sent"]["top_logprobs"] == 5


def test_a_refusal_that_only_mentions_likelihoods() -> None:
    """A prompt that is refused whatever is left out costs the others nothing."""

    def plan(request: Request) -> Send | None:
        if request.prompt == "bad":
            return error(400, "too long: {'logprobs': true, 'seed': 0, 'prompt': ...}")
        return say("Yes", logprobs=top("Yes", -0.2, ("No", -2.0)))

    replies, engine, _ = ask_under(plan, YES_NO, Prompt("bad", ("Yes", "No")), YES_NO)
    assert [len(r.scores) for r in replies] == [2, 0, 2] and "too long" in (replies[1].error or "")
    assert engine.notes()["sent"] == {"limit_as": "max_tokens", "seed": True, "top_logprobs": 20}


def test_likelihoods_alone() -> None:
    def plan(request: Request) -> Send:
        others = [] if request.prompt == "rare" else [("No", -2.0)]
        return say("Yes", logprobs=None if request.prompt == "silent" else top("Yes", -0.2, *others))

    prompts = [Prompt(text, ("Yes", "No"), "none") for text in ("both", "rare", "silent")]
    ending = Prompt("end", ("Yes", "No"), "none", end=True)
    replies, _, requests = ask_under(plan, *prompts, ending, Prompt("short", ("Yes", "No"), end=True))
    assert replies[0] == Reply(scores=replies[0].scores) and [s.logp for s in replies[0].scores] == [-0.2, -2.0]
    assert (replies[1].error or "").startswith("the options are not all among the first tokens that it lists, or")
    assert replies[2].error == "the server offers no likelihoods"
    assert replies[3].error == "the server offers no likelihoods of ending an answer"
    assert (replies[4].text, replies[4].scores) == ("Yes", ())
    assert [r.body["max_tokens"] for r in requests] == [1, 1, 1, 16]


def test_likelihoods_not_wanted() -> None:
    replies, engine, requests = ask_under(lambda r: say("Yes"), YES_NO, logprobs="off")
    assert replies == [Reply("Yes")] and "logprobs" not in requests[0].body
    assert engine.notes()["why"] == "no likelihoods: not asked for" and engine.settings()["logprobs"] == "off"
    assert ask_under(lambda r: say("Yes"))[1].notes()["why"] == "no likelihoods: the server sends none"
