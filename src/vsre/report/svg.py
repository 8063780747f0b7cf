"""Small parts of charts: elements, scales, axes.

A chart is an SVG as wide as its container, without a viewBox: positions along x are percentages, positions
along y and all type are pixels. So it stays crisp and legible from a phone to a wide screen, without script.
Colours come from the page's style sheet (classes), which has a light and a dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from vsre.report.text import clean


def el(tag: str, *children: str | Markup, **attributes: object) -> Markup:
    """An element; text children and attribute values are cleaned and escaped, `cls` is class, a_b is a-b."""
    names = {"cls": "class"}
    pairs = "".join(
        f' {names.get(k, k.replace("_", "-"))}="{_safe(v)}"' for k, v in attributes.items() if v is not None
    )
    inner = "".join(_safe(c) for c in children)
    return Markup(f"<{tag}{pairs}>{inner}</{tag}>")


def _safe(thing: object) -> Markup:
    return thing if isinstance(thing, Markup) else escape(clean(thing))


def pct(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


def px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def chart(label: str, height: float, parts: Iterable[Markup], cls: str = "chart") -> Markup:
    """The outer element; `label` says in words what the chart shows, for those who cannot see it."""
    return el("svg", Markup("").join(parts), cls=cls, role="img", aria_label=label, width="100%", height=px(height))


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> Markup:
    """A line from (x1 %, y1 px) to (x2 %, y2 px)."""
    return el("line", x1=pct(x1), y1=px(y1), x2=pct(x2), y2=px(y2), cls=cls)


def label(x: float, y: float, text: str, cls: str = "tick", anchor: str = "middle", dx: float = 0) -> Markup:
    return el("text", text, x=pct(x), y=px(y), cls=cls, text_anchor=anchor, dx=px(dx) if dx else None)


@dataclass(frozen=True)
class Scale:
    """A range of values laid over the width of a chart."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float], step: float = 0.1, least: float = 0.0, most: float = 1.0) -> Scale:
        """Return the smallest range of whole steps that holds all values with a small margin."""
        known = list(values) or [least, most]
        low = math.floor((min(known) - 0.015) / step) * step
        high = math.ceil((max(known) + 0.015) / step) * step
        return cls(max(least, round(low, 6)), min(most, round(high, 6)))

    def __call__(self, value: float) -> float:
        """Return the position in percent of the width."""
        span = self.high - self.low or 1.0
        return 100 * min(1.0, max(0.0, (value - self.low) / span))

    def ticks(self) -> list[float]:
        """Return tens, or quarters if tens would crowd a narrow screen."""
        step = 0.1 if self.high - self.low < 0.55 else 0.25
        first = math.ceil(round(self.low / step, 6))
        last = math.floor(round(self.high / step, 6))
        return [round(i * step, 6) for i in range(first, last + 1)]


def polyline(points: Iterable[tuple[float, float]], height: float, cls: str) -> Markup:
    """A line through (x %, y px) points, in a stretched inner svg whose strokes keep their width."""
    path = " ".join(f"{x:.2f},{y:.1f}" for x, y in points)
    return el(
        "svg",
        el("polyline", points=Markup(path), cls=cls, vector_effect="non-scaling-stroke"),
        viewBox=f"0 0 100 {px(height)}",
        preserveAspectRatio="none",
        width="100%",
        height=px(height),
        aria_hidden="true",
    )
