"""The charts of the report, each a function from figures to SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vsre.report.inputs import Estimate
from vsre.report.svg import Scale, chart, el, label, line, pct, polyline, px


def percent(value: float | None, digits: int = 1) -> str:
    # a no-break space: the sign must not start a line
    return "–" if value is None else f"{100 * value:.{digits}f}\u00a0%"


def swarm_offsets(values: Sequence[float], width: float, room: float, dot: float) -> list[float]:
    """Return how far each dot is moved off the line, so that dots closer than `width` do not hide each other."""
    bins: dict[int, list[int]] = {}
    for i, value in enumerate(values):
        bins.setdefault(int(value // width), []).append(i)
    offsets = [0.0] * len(values)
    for members in bins.values():
        gap = min(dot, 2 * room / max(1, len(members) - 1))
        for rank, i in enumerate(members):
            offsets[i] = (rank - (len(members) - 1) / 2) * gap
    return offsets


def strip(
    name: str,
    dots: Sequence[tuple[str, float]],
    mean: Estimate,
    pinned: Estimate,
    floor: float | None,
    scale: Scale,
) -> Markup:
    """Draw one model's accuracy under every wording, a dot each; below, Test-G with its interval, and Test-S."""
    middle, base, height = 31.0, 64.0, 80.0
    parts = [line(scale(t), 0, scale(t), height, "grid") for t in scale.ticks()]
    if floor is not None:
        parts.append(line(scale(floor), 0, scale(floor), height, "floor"))
    span = scale.high - scale.low
    ordered = sorted(dots, key=lambda d: d[1])
    for (template, value), dy in zip(ordered, swarm_offsets([v for _, v in ordered], span / 80, 23, 5.2), strict=True):
        title = el("title", f"{template}: {percent(value)}")
        parts.append(el("circle", title, cx=pct(scale(value)), cy=px(middle + dy), r="3.4", cls="dot"))
    parts += interval_mark(scale, mean, base, "mean", f"Test-G {percent(mean.value)}")
    if pinned.value is not None:
        at = pct(scale(pinned.value))
        title = el("title", f"Test-S {percent(pinned.value)}")
        diamond = el("rect", title, x="-4.2", y="-4.2", width="8.4", height="8.4", transform="rotate(45)", cls="pin")
        # a transform cannot hold a percentage: the inner svg moves the origin, the transform only rotates
        parts.append(el("svg", diamond, x=at, y=px(base), cls="open"))
    low, high = (ordered[0][1], ordered[-1][1]) if ordered else (None, None)
    about = f"{name}: accuracy under {len(dots)} wordings from {percent(low)} to {percent(high)}"
    return chart(f"{about}, mean {percent(mean.value)}", height, parts)


def interval_mark(scale: Scale, e: Estimate, y: float, cls: str, title: str, radius: float = 4.5) -> list[Markup]:
    """Draw a dot on its 95 % interval."""
    if e.value is None:
        return []
    parts = []
    if e.low is not None and e.high is not None:
        parts.append(line(scale(e.low), y, scale(e.high), y, f"whisker {cls}"))
    parts.append(el("circle", el("title", title), cx=pct(scale(e.value)), cy=px(y), r=px(radius), cls=f"mark {cls}"))
    return parts


def x_axis(scale: Scale) -> Markup:
    """Draw the tick labels of a chart in percent, to go above or below several charts of one scale."""
    texts = [label(scale(t), 12, f"{100 * t:.0f}") for t in scale.ticks()]
    return el("svg", Markup("").join(texts), cls="chart axis", width="100%", height="16", aria_hidden="true")


def _y_lines(height: float) -> list[Markup]:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = height * (1 - share)
        parts += [line(0, y, 100, y, "grid"), label(0, y + 3.5, f"{100 * share:.0f}", "tick", "end", dx=-6)]
    return parts


def template_chart(name: str, templates: Sequence[dict[str, Any]], height: float = 120) -> Markup:
    """Draw, over the templates of a pack, the answered share as bars, acc_t and acc_a as lines."""
    n = max(1, len(templates))
    parts = _y_lines(height)
    lines: dict[str, list[list[tuple[float, float]]]] = {"acc_a": [[]], "acc_t": [[]]}
    for i, template in enumerate(templates):
        e = {k: Estimate.of(template.get(k)).value for k in ("answered", "acc_t", "acc_a")}
        centre = 100 * (i + 0.5) / n
        if e["answered"] is not None:
            tall = height * e["answered"]
            parts.append(_bar(centre, 80 / n, height - tall, tall, "answered"))
        for key, pieces in lines.items():
            if (value := e[key]) is not None:
                pieces[-1].append((centre, height * (1 - value)))
            elif pieces[-1]:
                pieces.append([])  # a template without the figure breaks the line
        told = ", ".join(f"{k} {percent(v)}" for k, v in e.items())
        title = el("title", f"{template.get('template')}: {told}")
        parts.append(el("rect", title, x=pct(100 * i / n), y="0", width=pct(100 / n), height=px(height), cls="hover"))
    for key, points in ((key, piece) for key, pieces in lines.items() for piece in pieces):
        if len(points) > 1:
            parts.append(polyline(points, height, f"line {key}"))
        parts += [el("circle", cx=pct(x), cy=px(y), r="2" if n > 12 else "3", cls=f"point {key}") for x, y in points]
    return chart(f"{name}: answered share, acc_t and acc_a for {len(templates)} templates", height, parts)


def _bar(centre: float, width: float, y: float, height: float, cls: str) -> Markup:
    return el("rect", x=pct(centre - width / 2), y=px(y), width=pct(width), height=px(height), cls=cls)


def yes_no_chart(name: str, templates: Sequence[dict[str, Any]], half: float = 56) -> Markup:
    """Draw, over the templates of a pack, accuracy if "yes" is right upwards, and if "no" is right downwards.

    A model without bias draws bars of equal length on both sides.
    """
    n = max(1, len(templates))
    parts = []
    for share in (-1.0, -0.5, 0.5, 1.0):
        y = half * (1 - share)
        parts.append(line(0, y, 100, y, "grid"))
        if abs(share) == 1.0:
            parts.append(label(0, y + 3.5, "100", "tick", "end", dx=-6))
    for i, template in enumerate(templates):
        yes, no = (Estimate.of(template.get(k)).value for k in ("yes_acc", "no_acc"))
        centre = 100 * (i + 0.5) / n
        if yes is not None:
            parts.append(_bar(centre, 80 / n, half - half * yes, half * yes, "said-yes"))
        if no is not None:
            parts.append(_bar(centre, 80 / n, half, half * no, "said-no"))
        title = el("title", f"{template.get('template')}: yes {percent(yes)}, no {percent(no)}")
        parts.append(el("rect", title, x=pct(100 * i / n), y="0", width=pct(100 / n), height=px(2 * half), cls="hover"))
    parts += [line(0, half, 100, half, "axis-line"), label(0, half + 3.5, "0", "tick", "end", dx=-6)]
    about = f"{name}: accuracy on true statements (up) and false ones (down) for {len(templates)} templates"
    return chart(about, 2 * half, parts)


def dot_rows(name: str, series: Sequence[tuple[str, str, Estimate]], scale: Scale, gap: float = 9) -> Markup:
    """Draw one row of a dot chart: for each (label, class, figure) a dot on its interval, one below the other."""
    height = gap * len(series) + 11
    parts = [line(scale(t), 0, scale(t), height, "grid mid" if t == 0.5 else "grid") for t in scale.ticks()]
    told = []
    for i, (who, cls, e) in enumerate(series):
        told.append(f"{who} {percent(e.value)}")
        title = f"{who}: {percent(e.value)}" + ("" if e.n is None else f" of {e.n}")
        parts += interval_mark(scale, e, 10 + gap * i, cls, title, 3.6)
    return chart(f"{name}: {', '.join(told)}", height, parts)


def loss_chart(name: str, points: Sequence[tuple[float, float]], height: float = 110) -> Markup:
    """Draw a stage's training loss: as logged (faint) and smoothed; the axis starts at zero."""
    steps, losses = np.array(points, dtype=np.float64).T
    keep = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 400)).round().astype(int))
    top = _round_up(float(np.percentile(losses, 99.5)))
    first, last = float(steps[0]), float(steps[-1])
    span = last - first or 1.0
    smooth = _smoothed(losses, max(1, len(losses) // 30))

    def place(values: np.ndarray) -> list[tuple[float, float]]:
        return [(100 * (steps[i] - first) / span, height * (1 - min(1.0, values[i] / top))) for i in keep]

    parts = [line(0, y, 100, y, "grid") for y in (0, height / 2, height)]
    parts += [
        label(0, 3.5, f"{top:.2g}", "tick", "end", dx=-6),
        label(0, height / 2 + 3.5, f"{top / 2:.2g}", "tick", "end", dx=-6),
        label(0, height + 3.5, "0", "tick", "end", dx=-6),
        polyline(place(losses), height, "line raw"),
        polyline(place(smooth), height, "line smooth"),
        label(0, height + 16, f"step {first:,.0f}", "tick", "start"),
        label(100, height + 16, f"{last:,.0f}", "tick", "end"),
    ]
    return chart(f"{name}: training loss from {smooth[0]:.3f} to {smooth[-1]:.3f}", height + 20, parts)


def _round_up(value: float) -> float:
    """Round up to the next half of a power of ten: 1.48 -> 1.5, 0.031 -> 0.035; 1 for values not above zero."""
    if value <= 0:
        return 1.0
    step = 10.0 ** math.floor(math.log10(value)) / 2
    return math.ceil(value / step) * step


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Return a centred moving mean whose window shrinks at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(0, at - width), np.minimum(len(values), at + width + 1)
    return np.asarray((total[high] - total[low]) / (high - low))
