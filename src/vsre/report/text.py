"""Making text from anywhere (captions, answers, model names) fit to show: visible, bounded, in one direction."""

from __future__ import annotations

import unicodedata
from typing import Any

LIMIT = 300


def clean(text: Any, limit: int = LIMIT) -> str:
    """Return at most `limit` characters, cut with an ellipsis, control and formatting characters made visible.

    Control characters would be lost or break the page, and those that reverse the writing direction would let
    an answer rewrite the text around it. Line breaks become spaces.
    """
    raw = str(text)
    cut = raw[: limit - 1].rstrip() + "…" if len(raw) > limit else raw
    return "".join(_visible(c) for c in cut)


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return " "
    kind = unicodedata.category(character)
    if kind == "Cc":
        return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "␡"
    return "�" if kind in ("Cf", "Cs", "Cn", "Co") and character != "\u200d" else character


def value_text(value: Any) -> str:
    """Format a value for readers: thousands grouped, floats short, lists joined, null a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, dict):
        if "value" in value:
            interval = [value.get("low"), value.get("high")]
            around = "" if None in interval else f" [{value_text(interval[0])}, {value_text(interval[1])}]"
            count = f", n {value_text(value['n'])}" if value.get("n") is not None else ""
            return f"{value_text(value['value'])}{around}{count}"
        return "; ".join(f"{str(k).replace('_', ' ')} {value_text(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list | tuple | set):
        return ", ".join(value_text(v) for v in value)
    return str(value)


def duration(seconds: float | None) -> str:
    """Format seconds as 0.4 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
