"""What the report says of figures: differences, wording, tables, charts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fakes import make_log, make_run, make_triplets
from rich.console import Console

from vsre.report import ReportRun, as_json, markdown_table, result_table
from vsre.report.charts import loss_chart, percent, swarm_offsets, template_chart
from vsre.report.compare import Difference, blind_floor, difference, finding, unpaired
from vsre.report.inputs import Estimate, before_and_after, open_run, read_loss
from vsre.report.svg import Scale, el
from vsre.report.text import clean, duration, value_text

SMALL = {"pool": 3, "held-out": 2, "test-s": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[ReportRun]:
    root = tmp_path_factory.mktemp("figures")
    triplets = make_triplets(root / "data", 200)
    weak = make_run(root / "weak", "weak", triplets, skill=0.1, leaning=0.5, packs=SMALL)
    strong = make_run(root / "strong", "strong", triplets, skill=1.5, packs=SMALL)
    return [
        ReportRun(name="weak | [red]<b>", folder=weak, role="base"),
        ReportRun(name="strong", folder=strong, role="expert"),
    ]


@pytest.mark.parametrize(
    ("low", "value", "high", "words"),
    [
        (0.04, 0.071, 0.102, "higher by 7.1 points [4.0, 10.2]"),
        (-0.102, -0.071, -0.04, "lower by 7.1 points [4.0, 10.2]"),
        (-0.012, 0.008, 0.028, "no difference that this sample can show (+0.8 points [−1.2, +2.8])"),
        (0.0, 0.0, 0.0, "no difference that this sample can show (+0.0 points [+0.0, +0.0])"),
    ],
)
def test_words_say_what_the_interval_allows(low: float, value: float, high: float, words: str) -> None:
    assert Difference(value, low, high).words() == words


def test_the_difference_of_a_run_with_itself_is_exactly_none(runs: list[ReportRun]) -> None:
    run = open_run(runs[0])
    same = difference(run, run, "test_g")
    assert same is not None
    assert (same.value, same.low, same.high, same.paired) == (0, 0, 0, True)


def test_a_paired_interval_is_tighter_than_an_unpaired_one(runs: list[ReportRun]) -> None:
    weak, strong = map(open_run, runs)
    paired = difference(weak, strong, "test_s")
    apart = unpaired(weak.estimate("test_s", "acc_t"), strong.estimate("test_s", "acc_t"))
    assert paired is not None and apart is not None
    assert paired.value == pytest.approx(apart.value)
    assert paired.low < paired.value < paired.high
    assert paired.verdict == "higher"
    assert paired.high - paired.low < 1.3 * (apart.high - apart.low)


def test_without_samples_the_intervals_themselves_are_used(runs: list[ReportRun]) -> None:
    weak, strong = map(open_run, runs)
    strong.files = []
    change = difference(weak, strong, "test_g")
    assert change is not None and not change.paired
    assert difference(weak, strong, "nothing") is None
    assert unpaired(Estimate(0.5), Estimate(0.6)) is None


def test_the_blind_floor_is_the_best_known_guesser(runs: list[ReportRun]) -> None:
    run = open_run(runs[0])
    run.metrics["blind_floor"] = {"majority": 0.5, "per_relation": None, "ngrams": {"value": 0.54, "n": 9}}
    assert blind_floor(run) == ("the words of the statement", Estimate(0.54, n=9))
    run.metrics["blind_floor"] = None
    assert blind_floor(run)[1].value is None


def test_the_console_table_holds_every_model_and_prints_names_as_they_are(runs: list[ReportRun]) -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(result_table(runs))
    assert all(word in out.getvalue() for word in ("weak | [red]<b>", "strong", "Blind floor", "Chance", "AUROC"))


def test_the_markdown_table_is_rectangular(runs: list[ReportRun]) -> None:
    lines = [line for line in markdown_table(runs).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(runs) + 2
    assert "<b>" not in "".join(lines)


def test_programs_get_the_same_figures_as_fractions(runs: list[ReportRun]) -> None:
    rows = as_json(runs)
    expected = open_run(runs[1]).estimate("test_g", "acc_t")
    assert rows[1]["Test-G"] == {
        "value": expected.value,
        "low": expected.low,
        "high": expected.high,
        "n": expected.n,
    }


def test_before_is_the_base_and_after_the_last_expert(runs: list[ReportRun]) -> None:
    weak, strong = map(open_run, runs)
    assert before_and_after([strong, weak, weak]) == (weak, strong)
    assert before_and_after([weak]) == (weak, weak)


@pytest.mark.parametrize("thing", [None, "0.5", float("nan"), True, {}, {"value": None}, [0.5]])
def test_what_is_no_number_is_unknown(thing: object) -> None:
    assert Estimate.of(thing).value is None


def test_a_log_cut_short_is_still_read(tmp_path: Path) -> None:
    points = read_loss(make_log(tmp_path / "log.jsonl", steps=50))
    assert len(points) == 50
    assert read_loss(tmp_path / "absent.jsonl") == []
    assert "training loss from 1." in loss_chart("stage 1", points)


@given(st.text(max_size=400), st.integers(1, 80))
def test_cleaned_text_is_bounded_and_printable(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert all(c.isprintable() or c in " \u200d" or c.isspace() for c in cleaned)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_dots_of_a_swarm_stay_in_their_room(values: list[float]) -> None:
    offsets = np.array(swarm_offsets(values, 0.01, 23, 5.2))
    assert np.abs(offsets).max() <= 23 + 1e-9


@given(st.lists(st.floats(0, 1), max_size=20))
def test_a_scale_holds_its_values(values: list[float]) -> None:
    scale = Scale.around(values)
    assert all(scale.low <= v <= scale.high for v in values)
    assert all(0 <= scale(t) <= 100 for t in scale.ticks())


def test_a_template_without_the_figure_parts_the_line() -> None:
    scores = (0.5, 0.6, None, 0.7, 0.8)
    templates = [{"template": str(i), "acc_t": 0.5, "acc_a": score} for i, score in enumerate(scores)]
    assert template_chart("m", templates).count("<polyline") == 1 + 2


def test_unreadable_answers_are_said_in_the_finding(runs: list[ReportRun]) -> None:
    weak, strong = map(open_run, runs)
    strong.metrics["test_g"]["answered"]["value"] = 0.25
    assert "only 25.0\xa0% of its answers can be read" in finding(weak, strong)


def test_values_are_written_for_people() -> None:
    assert [value_text(v) for v in (None, True, 450000, 0.0012345, [1, "a"], {"k": 2})] == [
        "–", "yes", "450,000", "0.001234", "1, a", "k 2",
    ]  # fmt: skip
    assert [duration(s) for s in (None, 0.44, 42, 200, 7500)] == [
        "–",
        "0.4 s",
        "42 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    assert percent(None) == "–"


def test_svg_text_and_attributes_are_escaped() -> None:
    made = el("text", "<b>&\x00", title='"><script>')
    assert "<b>" not in made and "<script>" not in made and "\x00" not in made
