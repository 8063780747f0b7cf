"""Intervals: what hangs together by picture or group is drawn together, and nothing else is."""

from __future__ import annotations

import pytest
from benchmark_data import picture
from hypothesis import given
from hypothesis import strategies as st

from vsre.benchmarks import Item
from vsre.benchmarks.pictures import Pictures
from vsre.benchmarks.shares import Shares, all_right, average

PICTURES = [Pictures([]).take(picture(n)) for n in range(8)]


def item(key: int, shown: int, group: str) -> Item:
    return Item(str(key), PICTURES[shown], ("a", "b"), 0, "ask", "ask", group, "c")


@pytest.mark.parametrize(
    ("places", "clusters"),
    [
        ([(0, "a"), (1, "b"), (2, "c")], 3),
        ([(0, "a"), (0, "b"), (1, "c")], 2),  # one picture
        ([(0, "a"), (1, "a"), (2, "c")], 2),  # one group
        ([(0, "a"), (1, "a"), (1, "b"), (2, "b"), (3, "d")], 2),  # a chain of both
        ([(3, "d"), (2, "b"), (1, "b"), (1, "a"), (0, "a")], 2),
    ],
)
def test_clusters(places: list[tuple[int, str]], clusters: int) -> None:
    items = [item(k, *place) for k, place in enumerate(places)]
    assert Shares(items).bootstrap.images == clusters


def test_questions_about_one_picture_are_one_observation() -> None:
    """A hundred right answers about one picture and a hundred wrong ones about another: the interval is that of two."""
    items = [item(k, k // 100, str(k)) for k in range(200)]
    figure = Shares(items).mean((i, float(i.picture is PICTURES[0])) for i in items).figure()
    assert figure == {"value": 0.5, "low": 0.0, "high": 1.0, "n": 200}
    apart = [item(k, k % 8, str(k // 8)) for k in range(8)] + [item(9, 0, "x")]
    narrow = Shares(apart).mean((i, float(i.key != "9")) for i in apart).figure()
    assert (
        narrow["low"] == narrow["high"] == narrow["value"] == pytest.approx(8 / 9)
    )  # one cluster says nothing of others


def test_what_does_not_count_is_left_out() -> None:
    items = [item(k, k, str(k)) for k in range(4)]
    shares = Shares(items)
    told = shares.mean(zip(items, [1.0, None, 0.0, 1.0], strict=True))
    assert told.n == 3 and told.figure()["value"] == pytest.approx(2 / 3)
    nothing = shares.mean((i, None) for i in items)
    assert not nothing and nothing.figure() == {"value": None, "low": None, "high": None, "n": 0}
    both = average([shares.mean([(items[0], 1.0)]), told])
    assert both.figure()["value"] == pytest.approx((1 + 2 / 3) / 2) and both.n == 4
    assert told.plus(told).times(100).figure()["value"] == pytest.approx(400 / 3)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=6))
def test_a_group_is_right_only_if_all_of_it_is(values: list[float | None]) -> None:
    found = all_right(values)
    if not values or None in values:
        assert found is None
    else:
        assert found is not None and 0 <= found <= min(v for v in values if v is not None)
        assert (found == 1) == all(v == 1 for v in values)
