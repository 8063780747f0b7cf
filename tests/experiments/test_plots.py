"""Plots: which points and bounds are drawn, read back from the axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from vsre.experiments.cost_plot import points
from vsre.experiments.forest import LETTERS, draw_forest
from vsre.experiments.plots import _dots, _lines, _mean, _sensitivity, draw
from vsre.experiments.schema import Plot


def row(model: str, seed: int, value: float, figure: str = "test_g.acc_t", **more: Any) -> dict[str, Any]:
    bounds = {"low": value - 0.1, "high": value + 0.1}
    return {"variant": "main", "seed": seed, "model": model, "figure": figure, "value": value} | bounds | more


def axes() -> Any:
    return Figure().add_subplot()


def test_bounds_are_over_seeds_or_the_runs_own_or_none() -> None:
    assert _mean([row("a", 0, 0.5)]) == pytest.approx((0.5, 0.4, 0.6))
    mean = _mean([row("a", 0, 0.5), row("a", 1, 0.6)])
    assert mean == pytest.approx((0.55, 0.55 - 12.7062 * 0.05, 0.55 + 12.7062 * 0.05), rel=1e-4)
    both = _mean([row("a", 0, 0.5), row("b", 0, 0.7)])
    assert both is not None and both[0] == 0.6 and np.isnan(both[1:]).all(), "two arms are not two seeds"
    assert _mean([]) is None


def test_arms_that_share_a_value_are_shown_beside_their_mean() -> None:
    rows = [
        row(name, 0, value, factor_count=count) for name, value, count in (("a", 0.5, 1), ("b", 0.7, 1), ("c", 0.8, 2))
    ]
    at = axes()
    assert _lines(Plot(kind="lines", name="n", title="", x="count"), rows, at)
    drawn = [tuple(np.asarray(part).tolist() for part in line.get_data()) for line in at.lines]
    assert ([1, 1], pytest.approx([50, 70])) in drawn
    assert ([1, 2], pytest.approx([60, 80])) in drawn
    assert not _lines(Plot(kind="lines", name="n", title="", x="nothing"), rows, axes())


def test_a_line_for_each_value_of_another_factor() -> None:
    rows = [row(f"{x}{by}", 0, 0.1 * x, factor_x=x, factor_by=by) for x in (1, 2, 3) for by in (0.0, 1.0)]
    at = axes()
    assert _lines(Plot(kind="lines", name="n", title="", x="x", by="by"), rows, at)
    assert at.get_legend_handles_labels()[1] == ["Test-G, by 0", "Test-G, by 1"]


def test_lines_without_any_value_are_not_drawn(tmp_path: Path) -> None:
    nothing = {"value": None, "low": None, "high": None}
    rows = [row("a", 0, 0.5, "bias", factor_x=x) | nothing for x in (1, 2)]
    plot = Plot(kind="lines", name="n", title="", x="x", y=["bias"])
    assert not _lines(plot, rows, axes())
    schema = pa.Table.from_pylist([row("a", 0, 0.5, factor_x=1)]).schema
    assert draw(plot, pa.Table.from_pylist(rows, schema=schema), [0], tmp_path)["file"] is None
    rows += [row("a", 0, 0.5, factor_x=x) for x in (1, 2)]
    at = axes()
    assert _lines(plot.model_copy(update={"y": ["bias", "test_g.acc_t"]}), rows, at), "the others are"
    assert at.get_legend_handles_labels()[1] == ["Test-G"]


def test_dots_of_several_figures_do_not_lie_on_one_another() -> None:
    arms = {"a": [row("a", 0, 0.5), row("a", 0, 0.5, "test_s.acc_t")], "b": [row("b", 0, 0.6)]}
    at = axes()
    assert _dots(Plot(kind="dots", name="n", title="", y=["test_g.acc_t", "test_s.acc_t"]), arms, at)
    places = {(round(x), round(y, 3)) for bar in at.containers for x, y in zip(*bar.lines[0].get_data(), strict=True)}
    assert places == {(50, -0.125), (60, 0.875), (50, 0.125)}
    assert not _dots(Plot(kind="dots", name="n", title="", y=["bias"]), arms, axes())


def test_wordings_are_a_cloud_of_means_over_seeds() -> None:
    rows = [row("a", s, 0.5 + 0.1 * s + 0.01 * n, f"template.pool.{n}") for s in (0, 1) for n in (1, 2)]
    at = axes()
    assert _sensitivity(Plot(kind="sensitivity", name="n", title=""), {"a": [*rows, row("a", 0, 0.5)]}, at)
    assert sorted(at.collections[0].get_offsets()[:, 0]) == pytest.approx([56, 57])


def test_the_legend_has_the_marks_of_all_arms_once() -> None:
    """The first arm may have been asked less than the others."""
    known = [row("b", 0, 0.5, figure) for figure in ("test_g.acc_t", "blank.acc_t", "template.pool.1")]
    arms = {"a": [row("a", 0, 0.5)], "b": known, "c": known}
    at = axes()
    assert _sensitivity(Plot(kind="sensitivity", name="n", title=""), arms, at)
    said = ["a wording", "mean of the wordings", "the same, grey frame"]
    assert sorted(at.get_legend_handles_labels()[1]) == said


def test_a_plot_without_figures_is_no_file(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row("a", 0, 0.5), row("a", 1, 0.6)])
    plot = Plot(kind="dots", name="bias", title="", y=["bias"])
    assert draw(plot, table, [0], tmp_path)["file"] is None and not [*tmp_path.iterdir()]
    assert draw(plot.model_copy(update={"y": ["test_g.acc_t"]}), table, [0], tmp_path)["file"] == "bias.png"


def a_row(after: str, value: float, figure: str = "Test-G", **more: Any) -> dict[str, Any]:
    one_seed = {"low": None, "high": None, "pictures": [value - 0.1, value + 0.2], "primary": True}
    about: dict[str, Any] = {"relations": [], "but": [], "trained": None}
    return {"before": "a", "after": after, "figure": figure, "value": value} | one_seed | about | more


def bars(at: Any) -> list[tuple[float, float, float, float, str]]:
    """Of each bar of a forest its place from above, value and bounds, and the colour that it is filled with."""
    found = []
    for bar in at.containers:
        (x,), (y,) = bar.lines[0].get_data()
        ends = bar.lines[2][0].get_segments()[0][:, 0]
        found.append((round(y, 3), *np.round([x, *ends], 6).tolist(), bar.lines[0].get_markerfacecolor()))
    return found


def test_differences_with_their_bounds_over_seeds_or_pictures() -> None:
    rows = [
        a_row("b", 0.1),
        a_row("b", -0.2, "Test-S", low=-0.3, high=-0.15),
        a_row("c", 0.05, primary=False, relations=["near"], but=[]),
        a_row("d", 0.0, "Unseen"),
    ]
    at = axes()
    names = draw_forest("differences", ["test_g.acc_t", "test_s.acc_t"], rows, at)
    assert names == ["a → b", "a → c, on near"], "d has neither figure"
    assert sorted(bars(at)) == [
        (-0.125, 10, 0, 30, "C0"),
        (0.125, -20, -30, -15, "C1"),
        (0.875, 5, -5, 25, "white"),
    ]
    assert at.get_legend_handles_labels()[1] == ["Test-G", "Test-G, secondary", "Test-S"]


def test_effects_in_their_order_and_long_names_in_lines() -> None:
    rows = [
        {"effect": e, "figure": "Test-G", "value": v, "low": v - 0.1, "high": v + 0.1, "primary": True}
        for e, v in (("b", 1), ("a", 2))
    ]
    assert draw_forest("effects", ["test_g.acc_t"], rows, axes()) == ["b", "a"]
    (name,) = draw_forest("differences", ["test_g.acc_t"], [a_row("after " * 20, 0.1)], axes())
    assert "\n" in name and max(map(len, name.split("\n"))) <= LETTERS


def test_a_forest_is_a_file_where_something_is_tested(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row("a", 0, 0.5)])
    plot = Plot(kind="differences", name="d", title="")
    assert draw(plot, table, [0], tmp_path)["file"] is None
    assert draw(plot, table, [0], tmp_path, {"differences": [a_row("b", 0.1)]})["file"] == "d.png"


def test_accuracy_against_cost(tmp_path: Path) -> None:
    one_seed = {"value": 0.6, "low": None, "high": None, "pictures": [0.5, 0.65]}
    seeds = one_seed | {"low": 0.5, "high": 0.75}
    arms: list[dict[str, Any]] = [
        {"arm": "a", "Test-G": one_seed, "cost.visual_tokens": {"value": 36}, "cost.train_seconds": {"value": 1800}},
        {"arm": "b", "cost.visual_tokens": {"value": 72}},
        {"arm": "c", "Test-G": seeds, "cost.visual_tokens": {"value": 108}},
    ]
    assert points(arms, "cost.visual_tokens", "Test-G") == [(1, 36, 60, 50, 65), (3, 108, 60, 50, 75)]
    assert points(arms, "cost.train_seconds", "Test-G") == [(1, 0.5, 60, 50, 65)]
    plot = Plot(kind="cost", name="cost", title="What it costs")
    assert draw(plot, pa.table({}), [0], tmp_path, {"cost": arms})["file"] == "cost.png"
    assert draw(plot, pa.table({}), [0], tmp_path / "no", {"cost": arms[:2]})["file"] is None, (
        "one arm is no comparison"
    )


def test_a_dollar_begins_no_formula(tmp_path: Path) -> None:
    name = "lr $2^{ or $3"
    plot = Plot(kind="dots", name="d", title="$^{", y=["test_g.acc_t"])
    assert draw(plot, pa.Table.from_pylist([row(name, 0, 0.5)]), [0], tmp_path)["file"] == "d.png"
    tables: Any = {"differences": [a_row(name, 0.1)], "cost": [{"arm": name, "Test-G": {"value": 0.5}} | PAID] * 2}
    for kind in ("differences", "cost"):
        other = Plot(kind=kind, name=kind, title="$^{")
        assert draw(other, pa.table({"seed": pa.array([], pa.int64())}), [0], tmp_path, tables)["file"] == f"{kind}.png"


PAID = {"cost.visual_tokens": {"value": 36}}
