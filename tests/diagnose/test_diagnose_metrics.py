"""The figures against tables small enough to work out by hand, and against properties that must always hold."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from vsre.diagnose.metrics import summarise
from vsre.diagnose.samples import SCHEMA


def row(
    reading: str,
    truth: bool,
    *,
    key: str = "k",
    image: str = "i",
    template: str = "t",
    pack: str = "p",
    p_yes: float | None = None,
    relation: str = "on",
) -> dict[str, Any]:
    error = reading == "error"
    return dict.fromkeys(SCHEMA.names) | {
        "pack": pack,
        "template": template,
        "key": key,
        "image_id": image,
        "relation": relation,
        "meta_category": "topological",
        "truth": truth,
        "reading": reading,
        "correct": None if error else (reading == "yes") == truth and reading != "unanswered",
        "p_yes": p_yes,
        "error": "broken" if error else None,
    }


def figures(rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return summarise(pa.Table.from_pylist(rows, schema=SCHEMA), **{"resamples": 50, **options})


def value(figure: dict[str, Any]) -> Any:
    return figure["value"]


def test_rates_by_hand() -> None:
    # truth yes: yes, yes, no, unanswered; truth no: yes, no; one error beside
    rows = [row(r, True, key=f"y{i}", image=f"i{i}") for i, r in enumerate(["yes", "yes", "no", "unanswered"])]
    rows += [row(r, False, key=f"n{i}", image=f"i{i}") for i, r in enumerate(["yes", "no", "error"])]
    found = figures(rows)
    template = found["templates"][0]
    assert template["n"] == 6
    assert value(template["answered"]) == pytest.approx(5 / 6)
    assert value(template["acc_t"]) == pytest.approx(3 / 6) and template["acc_t"]["n"] == 6
    assert value(template["acc_a"]) == pytest.approx(3 / 5) and template["acc_a"]["n"] == 5
    assert value(template["yes_acc"]) == pytest.approx(2 / 4) and template["yes_acc"]["n"] == 4
    assert value(template["no_acc"]) == pytest.approx(1 / 2) and template["no_acc"]["n"] == 2
    assert value(template["bias"]) == pytest.approx(0)
    assert (found["errors"], found["unanswered"], found["n_triplets"], found["n_images"]) == (1, 1, 6, 4)
    assert found["error_reasons"] == {"broken": 1}
    assert "error" in found["warnings"][0]
    assert found["auroc"]["value"] is None and "likelihoods" in found["missing"]["auroc"]


def test_headlines_are_means_over_templates() -> None:
    rows = [row("yes", k == 0, key=f"k{k}", image=f"i{k}", pack="pool", template="a") for k in range(2)]
    rows += [row("yes", k < 4, key=f"k{k}", image=f"i{k}", pack="pool", template="b") for k in range(5)]
    rows += [row("no", False, key="k0", image="i0", pack="test-s", template="s")]
    found = figures(rows)
    assert value(found["test_g"]["acc_t"]) == pytest.approx((0.5 + 0.8) / 2)
    assert found["test_g"]["acc_t_over_templates"] == pytest.approx({"std": 0.15, "min": 0.5, "max": 0.8})
    assert found["test_g"]["n_templates"] == 2
    assert found["test_s"]["template"] == "s" and value(found["test_s"]["acc_t"]) == 1
    assert value(found["test_g"]["bias"]) == 1 and value(found["bias"]) == 1
    assert found["unseen"] is None and "held-out" in found["missing"]["unseen"]


def test_bias_is_absolute_at_the_top_and_signed_below() -> None:
    rows = []
    for template, reading in (("yea", "yes"), ("nay", "no")):
        rows += [row(reading, k % 2 == 0, key=f"k{k}", image=f"i{k}", template=template) for k in range(4)]
    found = figures(rows)
    assert value(found["bias"]) == 1 and value(found["signed_bias"]) == 0
    assert sorted(value(t["bias"]) for t in found["templates"]) == [-1, 1]


def test_signal_detection_by_hand() -> None:
    yes, no = [0.9, 0.8, 0.4, 0.6], [0.3, 0.6, 0.1]
    rows = [row("yes", True, key=f"y{i}", p_yes=p) for i, p in enumerate(yes)]
    rows += [row("yes", False, key=f"n{i}", p_yes=p) for i, p in enumerate(no)]
    found = figures(rows)
    # hits 3 of 4, false alarms 1 of 3; log-linear: 3.5/5 = 0.7 and 1.5/4 = 0.375; z = 0.5244, -0.3186
    assert value(found["dprime"]) == pytest.approx(0.5244 + 0.3186, abs=1e-3)
    assert value(found["criterion"]) == pytest.approx(-(0.5244 - 0.3186) / 2, abs=1e-3)
    assert value(found["auroc"]) == pytest.approx(roc_auc_score([1] * 4 + [0] * 3, yes + no))


def test_auroc_is_free_of_a_templates_leaning() -> None:
    rows = []
    for template, shift in (("a", 0.0), ("b", 0.5)):
        rows += [row("yes", True, key=f"y{i}", template=template, p_yes=0.3 + shift) for i in range(3)]
        rows += [row("yes", False, key=f"n{i}", template=template, p_yes=0.1 + shift) for i in range(3)]
    assert value(figures(rows)["auroc"]) == 1


def test_consistency_by_hand() -> None:
    readings = {
        "same": ["yes", "yes", "yes"],
        "split": ["yes", "yes", "no"],
        "silent": ["unanswered"] * 3,
        "once": ["no"],
    }
    rows = [
        row(reading, True, key=key, image=key, template=f"t{i}")
        for key, all_ in readings.items()
        for i, reading in enumerate(all_)
    ]
    found = figures(rows)["consistency"]
    assert value(found["all_agree"]) == pytest.approx(1 / 3) and found["all_agree"]["n"] == 3
    assert value(found["pairwise"]) == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_the_likelier_option_by_hand() -> None:
    """A yes of two tokens at -3 loses to a no of one at -2, and wins for each token."""
    both = {"logp_yes": -3.0, "tokens_yes": 2, "logp_no": -2.0, "tokens_no": 1}
    rows = [row("no", True, pack="pool", key="a") | both, row("no", False, pack="pool", key="b", image="j") | both]
    rows += [row("no", True, pack="test-s", key="c") | both | {"logp_yes": -1.0}]
    rows += [row("unanswered", True, pack="test-s", key="d", image="j")]  # an engine need not give likelihoods
    found = figures(rows)["likelihood"]
    assert {k: value(f) for k, f in found["sum"].items()} == {"test_s": 1.0, "test_g": 0.5, "all": 0.75}
    assert {k: value(f) for k, f in found["mean"].items()} == {"test_s": 1.0, "test_g": 0.5, "all": 0.75}
    rows[1] |= {"truth": True}
    found = figures(rows)["likelihood"]
    assert value(found["sum"]["test_g"]) == 0.0 and value(found["mean"]["test_g"]) == 1.0
    assert found["sum"]["test_s"]["n"] == 1
    assert figures([row("yes", True)])["likelihood"] == {}


def test_nothing_but_errors_and_nothing_at_all() -> None:
    assert figures([row("error", True)])["answered"]["value"] is None
    assert figures([])["templates"] == []


def test_interval_is_that_of_images() -> None:
    # 40 images, 25 equal answers each: as sure as 40 answers, not as 1,000
    rows = [row("yes", i % 2 == 0, key=f"{i}-{k}", image=f"i{i}") for i in range(40) for k in range(25)]
    acc = figures(rows, resamples=1000)["templates"][0]["acc_t"]
    assert acc["high"] - acc["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), rel=0.15)


def _of_an_image(*args: Any, key: str, **kwargs: Any) -> dict[str, Any]:
    return row(*args, key=key, image={"a": "x", "b": "x", "c": "y"}.get(key, "z"), **kwargs)


SAMPLES = st.lists(
    st.builds(
        _of_an_image,
        st.sampled_from(["yes", "no", "unanswered", "error"]),
        st.booleans(),
        key=st.sampled_from("abcdef"),
        template=st.sampled_from("st"),
        pack=st.sampled_from(["pool", "test-s"]),
        p_yes=st.floats(0, 1),
        relation=st.sampled_from(["on", "in"]),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(SAMPLES, st.randoms(use_true_random=False))
def test_properties(rows: list[dict[str, Any]], order: random.Random) -> None:
    found = figures(rows, resamples=20)
    assert found["errors"] + sum(t["n"] for t in found["templates"]) == len(rows)
    groups = [*found["templates"], *found["by_relation"].values(), *found["by_meta_category"].values()]
    for group in groups:
        answered, acc_t, acc_a = (value(group[name]) for name in ("answered", "acc_t", "acc_a"))
        if acc_a is not None:
            assert acc_t == pytest.approx(answered * acc_a)
        n_yes, n_no = group["yes_acc"]["n"], group["no_acc"]["n"]
        right = n_yes * (value(group["yes_acc"]) or 0) + n_no * (value(group["no_acc"]) or 0)
        assert acc_t * group["n"] == pytest.approx(right)
        assert n_yes + n_no == group["n"]
        for name in ("answered", "acc_t"):
            assert 0 <= group[name]["low"] <= group[name]["high"] <= 1
    shuffled = list(rows)
    order.shuffle(shuffled)
    again = figures(shuffled, resamples=20)
    assert again.pop("error_reasons") == found.pop("error_reasons")
    assert again == found


def test_fast_enough() -> None:
    """A thousand resamples of 38 k samples; the bound is far above the second it takes on an idle machine."""
    rng = np.random.default_rng(0)
    n = 38_000
    table = pa.table(
        {
            "pack": ["pool"] * n,
            "template": [f"t{i % 50}" for i in range(n)],
            "key": [f"k{i // 50}" for i in range(n)],
            "image_id": [f"i{i // 80}" for i in range(n)],
            "relation": [f"r{i // 50 % 60}" for i in range(n)],
            "meta_category": ["projective"] * n,
            "truth": rng.random(n) < 0.5,
            "reading": ["yes"] * n,
            "correct": rng.random(n) < 0.6,
            "p_yes": rng.random(n),
            "error": pa.nulls(n, pa.string()),
            "logp_yes": -rng.random(n),
            "logp_no": -rng.random(n),
            "tokens_yes": [1] * n,
            "tokens_no": [2] * n,
        }
    )
    started = time.process_time()
    summarise(table)
    assert time.process_time() - started < 6
