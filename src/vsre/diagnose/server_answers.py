"""What a server's chat completion says: the text, the first token's likelihoods, the tokens it counts.

Servers differ in all that the common schema leaves open, so everything is checked before it is trusted; a response
without a usable answer is `Unreadable`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vsre.diagnose.replies import Score
from vsre.rewrite.clean import answer_part

_ABSENT = -9999.0
"""What several servers write as log P of a token they have no value for."""

_MOST = 1.01
"""Values that add up to more than this (1 plus rounding) are not probabilities (but logits, say)."""

LEAST_MASS = 0.01
"""If the options together are less likely than this, the answer begins with none of them, whichever leads."""

_BLANKS = ("\u2581", "\u0120")
"""SentencePiece's and byte-level BPE's marks for a leading space."""


class Unreadable(ValueError):
    """A response that holds no answer; asking again may help."""


@dataclass(frozen=True)
class Answer:
    """One completion.

    `first` maps each token that the server lists for the first position of the answer to its log P; empty if it lists
    none, or if that position is not the answer's (a model that thinks aloud first). `reasoned`: it did, in a field of
    its own or before </think> in the text. `filtered`: a content filter withheld the text.
    """

    text: str
    first: Mapping[str, float]
    finish: str | None
    reasoned: bool
    filtered: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int
    model: str | None
    fingerprint: str | None


def read_completion(raw: bytes) -> Answer:
    """The first choice of a chat completion, as JSON in UTF-8. Raises Unreadable."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"invalid JSON ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise Unreadable("not a JSON object")
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices:
        said = error_text(found)
        raise Unreadable(f"no choices, but an error ({said})" if said else "no choices")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Unreadable("a choice without a message")
    finish = clean(choice.get("finish_reason"))
    if finish == "error":
        raise Unreadable(f"an answer that ended in an error ({error_text(choice) or 'no reason given'})")
    text = _text(message.get("content"))
    if not text and isinstance(message.get("refusal"), str):
        text = message["refusal"]
    text = _storable(text)
    reasoned = any(message.get(name) for name in ("reasoning_content", "reasoning")) or _thinks(text)
    usage = found["usage"] if isinstance(found.get("usage"), dict) else {}
    details = usage.get("prompt_tokens_details")
    return Answer(
        text=text,
        first={} if reasoned else _first_place(choice.get("logprobs"), text),
        finish=finish,
        reasoned=reasoned,
        filtered=finish == "content_filter" and not text,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=(_count(details.get("cached_tokens")) if isinstance(details, dict) else None) or 0,
        model=clean(found.get("model")),
        fingerprint=clean(found.get("system_fingerprint")),
    )


def option_scores(first: Mapping[str, float], options: Sequence[str]) -> tuple[Score, ...]:
    """log P that the answer begins with each option, from the first position's tokens; () unless all options are
    listed, or if several have less than LEAST_MASS together.

    An option is listed if a token is the whole of it, ignoring case and surrounding space: the probabilities of such
    tokens are added up. A token that is only the beginning of an option does not count: "In" begins "Incorrect" and "In
    the picture" alike.
    """
    totals: list[float] = []
    names = [_plain(option) for option in options]
    for name in names:
        found = [logp for token, logp in first.items() if name and _plain(token) == name]
        if not found or names.count(name) > 1:
            return ()
        top = max(found)
        totals.append(min(0.0, top + math.log(sum(math.exp(logp - top) for logp in found))))
    if len(totals) > 1 and sum(map(math.exp, totals)) < LEAST_MASS:
        return ()
    return tuple(Score(total, 1) for total in totals)


def error_text(found: Any) -> str:
    """What an error object says, in the forms that servers use: error.message, error, message, detail."""
    if isinstance(found, dict):
        for name in ("error", "message", "detail"):
            inner = found.get(name)
            if said := inner if isinstance(inner, str) else error_text(inner):
                return clean(said, 300) or ""
        return ""
    if isinstance(found, list) and found:  # a list of what was wrong, as pydantic gives it
        one = found[0]
        if isinstance(one, dict) and isinstance(one.get("msg"), str):
            return clean(f"{one.get('loc', '')} {one['msg']}", 300) or ""
        return error_text(one)
    return ""


def clean(text: Any, most: int = 200) -> str | None:
    """A server's own words for records and terminals: one line, printable characters, no longer than `most`."""
    if not isinstance(text, str):
        return None
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # parts; those of other kinds (pictures, thoughts) are not text
        parts = [part for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text")]
        if all(isinstance(part.get("text"), str) for part in parts):
            return "".join(part["text"] for part in parts)
    raise Unreadable(f"a message whose content is {type(content).__name__}")


def _thinks(text: str) -> bool:
    """Whether a text begins with thoughts, as the answer reader defines them; some templates write the <think>
    themselves, so that only its end is there."""
    part = answer_part(text)
    return part is None or "</think>" in text or not text.strip().startswith(part)


def _storable(text: str) -> str:
    """Replace lone surrogates, which JSON may hold but no file can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _first_place(logprobs: Any, text: str) -> dict[str, float]:
    """The tokens of the first position with log P; {} if nothing valid is given.

    Both forms in use are read: `content`, a list of positions with `top_logprobs` (OpenAI's chat), and `tokens`,
    `token_logprobs` and `top_logprobs` side by side (its older completions, which some servers kept).
    """
    if not isinstance(logprobs, dict):
        return {}
    pairs: list[tuple[Any, Any]] = []
    places, tokens = logprobs.get("content"), logprobs.get("tokens")
    if isinstance(places, list) and places and isinstance(places[0], dict):
        top = places[0].get("top_logprobs")
        listed = [place for place in (top if isinstance(top, list) else []) if isinstance(place, dict)]
        pairs = [(place.get("token"), place.get("logprob")) for place in (places[0], *listed)]
    elif isinstance(tokens, list) and tokens:
        values, tops = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
        pairs = [(tokens[0], values[0] if isinstance(values, list) and values else None)]
        pairs += tops[0].items() if isinstance(tops, list) and tops and isinstance(tops[0], dict) else []
    if not pairs or not isinstance(pairs[0][0], str):
        return {}
    # At another position (a thought's, a tool call's) the tokens would say nothing about the answer.
    if not text.lstrip().startswith(_spoken(pairs[0][0]).strip()):
        return {}
    first = {_spoken(token): float(logp) for token, logp in pairs if isinstance(token, str) and _is_logp(logp)}
    return first if sum(map(math.exp, first.values())) <= _MOST else {}


def _spoken(token: str) -> str:
    """A token as plain text: some servers send the vocabulary's own mark for a leading space."""
    return " " + token[1:] if token[:1] in _BLANKS else token


def _is_logp(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _ABSENT < value <= 1e-3


def _plain(token: str) -> str:
    return token.strip().casefold()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
