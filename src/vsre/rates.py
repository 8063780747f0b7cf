"""A share with its interval: the one way vsre reports how often something happened."""

from __future__ import annotations

from typing import Any

from scipy import stats  # type: ignore[import-untyped]


def share(part: int, whole: int) -> dict[str, Any] | None:
    """part / whole with its 95 % Wilson interval: {"value", "low", "high", "n"}, as JSON; None if `whole` is 0."""
    if not whole:
        return None
    low, high = stats.binomtest(part, whole).proportion_ci(method="wilson")
    return {"value": round(part / whole, 4), "low": round(float(low), 4), "high": round(float(high), 4), "n": whole}


def share_text(figure: dict[str, Any] | None) -> str:
    """A share as text: "74 % [62, 83] of 58"; a dash for None."""
    if figure is None:
        return "–"
    value, low, high = (f"{100 * figure[name]:.0f}" for name in ("value", "low", "high"))
    return f"{value} % [{low}, {high}] of {figure['n']:,}"
