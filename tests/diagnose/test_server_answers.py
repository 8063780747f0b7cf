"""What is read from a server's answers: texts of every form, dialects, waits, counts."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from fault_server import YES_NO, Request, Send, ask_under, completion, error, say
from hypothesis import given
from hypothesis import strategies as st

from vsre.diagnose import Reply
from vsre.diagnose.server_answers import Unreadable, clean, read_completion
from vsre.diagnose.server_batch import Patience
from vsre.diagnose.server_client import retry_after

# Texts


@pytest.mark.parametrize(
    ("send", "text", "odd"),
    [
        (say(""), "", {"empty": 1}),
        (say(None), "", {"empty": 1}),
        (say(" \n"), " \n", {"empty": 1}),
        (say([{"type": "text", "text": "Y"}, {"type": "text", "text": "es"}]), "Yes", {}),
        (say([{"type": "thinking", "thinking": "?"}, {"type": "text", "text": "No"}]), "No", {}),
        (say([]), "", {"empty": 1}),
        (say(None, message={"refusal": "I cannot help."}), "I cannot help.", {}),
        (say("Yes, the", finish_reason="length"), "Yes, the", {"cut_at_limit": 1}),
        (
            say(None, message={"reasoning_content": "Let me see"}, finish_reason="length"),
            "",
            {"cut_at_limit": 1, "empty": 1, "thought_aloud": 1, "thoughts_without_answer": 1},
        ),
        (say("Yes\ud800\U0001f600"), "Yes\ufffd\U0001f600", {}),  # half a surrogate pair, which no file can hold
        (say("Yes", usage=None, model=None), "Yes", {}),
        (say("Yes", finish_reason=None, model=7, usage={"prompt_tokens": "many"}), "Yes", {}),
    ],
)
def test_texts_of_every_form(send: Send, text: str, odd: dict[str, int]) -> None:
    replies, engine, _ = ask_under(lambda r: send)
    finish = json.loads(send.body)["choices"][0]["finish_reason"]
    assert replies[0].cut is (None if finish is None else "cut_at_limit" in odd)
    assert replies == [Reply(text)] and engine.notes()["odd_answers"] == odd
    json.dumps(engine.notes(), allow_nan=False)


def test_a_content_filter() -> None:
    replies, engine, _ = ask_under(lambda r: say(None, finish_reason="content_filter"))
    assert replies[0].error == "the server's content filter withheld the answer"
    assert engine.notes()["refused"] == {"content filter": 1}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "content", "logprobs", "top_logprobs", "token", "usage", "error"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_unreadable(found: Any) -> None:
    for whole in (found, completion("Yes", logprobs=found), completion(found), completion("Yes", usage=found)):
        try:
            answer = read_completion(json.dumps(whole).encode())
        except Unreadable:
            continue
        answer.text.encode("utf-8")
        assert all(math.isfinite(logp) for logp in answer.first.values())


@given(st.text())
def test_servers_words_are_one_printable_line(text: str) -> None:
    line = clean(text, 50)
    assert line is not None and len(line) <= 50 and line.isprintable()


# Dialects


def test_newer_names_and_missing_ones() -> None:
    """max_completion_tokens, and a seed that is not taken, are found out once."""

    def plan(request: Request) -> Send | None:
        if "max_tokens" in request.body:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return error(422, "seed: extra fields not permitted") if "seed" in request.body else say("Yes")

    replies, engine, requests = ask_under(plan, YES_NO, YES_NO)
    assert [r.text for r in replies] == ["Yes", "Yes"] and len(requests) == 4
    assert requests[3].body["max_completion_tokens"] == 16 and "seed" not in requests[3].body
    assert engine.notes()["sent"] == {"limit_as": "max_completion_tokens", "seed": False, "top_logprobs": 20}


def test_fields_left_to_the_server() -> None:
    _, engine, requests = ask_under(lambda r: say("Yes"), temperature=None, seed=None, image_detail="high")
    assert not {"temperature", "seed"} & requests[0].body.keys()
    assert requests[0].content[0]["image_url"]["detail"] == "high"
    settings = engine.settings()["decoding"]
    assert settings == {"greedy": False, "temperature": None, "seed": None, "short_tokens": 16, "full_tokens": 64}


# Waits


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, math.inf),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "7", "retry-after-ms": "x"}, 7.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:19 GMT"}, 40.0),
        ({"retry-after": "Fri, 99 Dec 1999 23:59:59 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx2.Headers(headers)) == seconds


@given(st.integers(0, 10**6))
def test_retry_after_by_our_own_clock(ahead: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    assert abs((retry_after(httpx2.Headers({"retry-after": date})) or 0.0) - ahead) < 2


@given(st.integers(1, 5000), st.floats(0, 5), st.none() | st.floats(0, 500))
def test_waits_double_and_never_undercut_the_server(failures: int, backoff: float, told: float | None) -> None:
    wait = Patience(backoff=backoff).wait(failures, told)
    own = min(60.0, backoff * 2 ** min(failures - 1, 30))
    if told is None:
        assert own / 2 <= wait <= own
    else:
        assert max(told, own / 2) <= wait <= max(own, told + 0.1 * own)


# Counts


def test_tokens_cost_and_latency() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 900}}
    plain = {"prompt_tokens": 500, "completion_tokens": 20}

    def plan(request: Request) -> Send:
        named = {"model": f"m-{request.number % 2}", "system_fingerprint": "fp"}
        return Send(say("Yes", usage=plain if request.number else usage, **named).body, after=0.02)

    _, engine, _ = ask_under(plan, *[YES_NO] * 5, price_in=2.0, price_out=10.0)
    notes = engine.notes()
    assert notes["tokens"] == {
        "prompt": 3000,
        "of_these_cached": 900,
        "completion": 90,
        "answers_without_a_count": 0,
    }
    assert notes["cost"] == pytest.approx((3000 * 2 + 90 * 10) / 1e6)
    assert notes["server_models"] == {"m-0": 3, "m-1": 2} and notes["system_fingerprints"] == {"fp": 5}
    assert 0.02 <= notes["latency_s"]["p50"] <= notes["latency_s"]["max"] < 1
    assert (notes["requests"], notes["answers"]) == (5, 5)


def test_no_cost_without_counts_or_prices() -> None:
    assert ask_under(lambda r: say("Yes", usage=None), price_in=1.0, price_out=1.0)[1].notes()["cost"] is None
    assert ask_under(lambda r: say("Yes"))[1].notes()["cost"] is None
    _, engine, _ = ask_under(lambda r: say("Yes", usage={"prompt_tokens": -5, "completion_tokens": True}))
    assert engine.notes()["tokens"]["answers_without_a_count"] == 1 and engine.notes()["tokens"]["prompt"] == 0
