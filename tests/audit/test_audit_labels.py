"""What tells the label: fields, captions, floors; the ceiling of the votes; the verdict in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_data import said, write

from vsre.audit import audit, leak_summary
from vsre.audit.labels import ceiling
from vsre.audit.rows import Row

THINGS = ("cat", "dog", "cup", "car", "bed", "bowl")


def rows(side: str, count: int, fields: Any = None, seed: int = 0) -> list[dict[str, Any]]:
    """Rows whose labels nothing tells, each about a picture of its own; `fields(label, i)` adds what may tell it."""
    rng = np.random.default_rng([seed, side == "train"])
    made = []
    for i in range(count):
        a, b = rng.choice(6, 2, replace=False)
        label = int(rng.integers(2))
        more = fields(label, i) if fields else {}
        made.append(said(f"{side}{i}.jpg", THINGS[a], ("near", "above", "left of")[i % 3], THINGS[b], label) | more)
    return made


def figures(tmp_path: Path, fields: Any = None, count: int = 240, **more: Any) -> dict[str, Any]:
    files = [write(tmp_path / f"{side}.jsonl", rows(side, count, fields)) for side in ("train", "test")]
    return audit(*files, **({"resamples": 200} | more)).figures


def entry(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(field for field in found["fields"] if field["field"] == name)


def test_a_field_that_says_the_label(tmp_path: Path) -> None:
    found = figures(tmp_path, lambda label, i: {"hint": "ab"[label], "noise": i % 7})
    assert entry(found, "hint")["tells_label"] and entry(found, "hint")["accuracy"]["value"] == 1
    assert entry(found, "hint")["one_label"] == {"rows": 240, "right": 240}
    assert not entry(found, "noise")["tells_label"]
    assert found["verdict"]["leaks"] and "the field `hint` reveals the label" in found["verdict"]["line"]


def test_a_field_set_on_some_true_rows_only(tmp_path: Path) -> None:
    """Like VSR's reference_frame: the majority over all rows hardly shows it."""
    found = figures(tmp_path, lambda label, i: {"frame": 1.0 if label and i % 10 == 0 else None})
    frame = entry(found, "frame")
    assert frame["tells_label"] and frame["gain"]["value"] < 0.1
    assert frame["one_label"]["rows"] == frame["one_label"]["right"] >= 5


def test_a_field_that_ends_with_the_true_rows(tmp_path: Path) -> None:
    """It is absent from the false rows, and the true ones come first."""
    made = [sorted(rows(side, 240), key=lambda row: -row["label"]) for side in ("train", "test")]
    files = []
    for name, those in zip("ab", made, strict=True):
        files.append(write(tmp_path / name, [row | ({"hint": 1} if row["label"] else {}) for row in those]))
    hint = entry(audit(*files, resamples=50).figures, "hint")
    assert hint["tells_label"] and hint["values"] == 1 and hint["accuracy"]["value"] == 1


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("image's folder", lambda label, i: {"image": f"{('false', 'true')[label]}/{i}-{label}.jpg"}),
        ("caption's writing", lambda label, i: {"caption": f"The cat is near the cup{'.' if label else ''}"}),
    ],
)
def test_leaks_in_names_and_writing(tmp_path: Path, field: str, fields: Any) -> None:
    assert entry(figures(tmp_path, fields), field)["tells_label"]


def test_votes_tell_the_label_and_are_no_leak(tmp_path: Path) -> None:
    def votes(label: int, i: int) -> dict[str, str]:
        names = ["vote_false_validator_id", "vote_true_validator_id"]
        return {names[label]: "[1, 2, 3]", names[1 - label]: "[]"}

    found = figures(tmp_path, votes)
    assert entry(found, "vote_true_validator_id")["tells_label"] and not found["verdict"]["leaks"]
    assert any("keep them from every model" in warning for warning in found["verdict"]["warnings"])


def test_nothing_told_is_no_leak(tmp_path: Path) -> None:
    """Over twenty data sets of noise with six fields each, no field and no caption is called a leak more than once."""
    alarms = 0
    for seed in range(20):
        made = {
            side: rows(
                side,
                150,
                lambda label, i, s=seed: {f"f{k}": (i * 7 + k * i // 3 + s) % (k + 3) for k in range(6)},
                seed,
            )
            for side in ("train", "test")
        }
        files = [write(tmp_path / f"{side}.jsonl", those) for side, those in made.items()]
        alarms += audit(*files, resamples=100).leaks
    assert alarms <= 1


def test_captions_that_tell_the_opposite(tmp_path: Path) -> None:
    """Each caption once true and once false, the pairs torn apart by the split: no picture is needed."""
    pairs = [(f"{i}a.jpg", f"{i}b.jpg", f"thing{i}") for i in range(120)]
    train = [said(a, thing, "near", "cup", i % 2) for i, (a, _, thing) in enumerate(pairs)]
    test = [said(b, thing, "near", "cup", 1 - i % 2) for i, (_, b, thing) in enumerate(pairs)]
    whole = [said(f"w{i}{x}.jpg", f"other{i}", "near", "cup", x) for i in range(40) for x in (0, 1)]
    found = audit(write(tmp_path / "a.jsonl", train + whole), write(tmp_path / "b.jsonl", test), resamples=200).figures
    assert found["floors"]["leave_one_out"]["value"] == found["floors"]["opposite"]["value"] == 1
    assert (
        found["findings"]["one_label_captions"] | {"label_repeated": 0, "label_reversed": 120}
        == (found["findings"]["one_label_captions"])
    )
    assert "captions reveal the label" in found["verdict"]["line"] and found["clean"]["rows"] == 120


def test_one_row_without_words_hides_no_leak(tmp_path: Path) -> None:
    train = [said(f"t{i}.jpg", "cat", "near", THINGS[i % 2], i % 2) for i in range(60)]
    test = [said(f"e{i}.jpg", "cat", "near", THINGS[i % 2], i % 2) for i in range(60)]
    empty = train[0] | {"caption": " . "}
    found = audit(write(tmp_path / "a.jsonl", [*train, empty]), write(tmp_path / "b.jsonl", test), resamples=50).figures
    assert found["train"]["set_aside"]["reasons"] == {"caption empty": 1}
    assert found["floors"]["ngrams"]["value"] == 1 and "captions reveal the label" in found["verdict"]["line"]


@pytest.mark.parametrize("true_beta", [(0.15, 0.13), (1.0, 1.5)])
def test_the_ceiling_is_that_of_simulated_people(true_beta: tuple[float, float]) -> None:
    """People with known shares vote and the majority labels; the estimate is how often that is most people's answer."""
    rng = np.random.default_rng(3)
    share = rng.beta(*true_beta, 8000)
    votes = rng.binomial(3, share)
    label = votes >= 2
    made = [
        Row(0, i, (str(i),), str(i), "", "", bool(yes), votes=(int(n), 3 - int(n)), image=i)
        for i, (n, yes) in enumerate(zip(votes, label, strict=True))
    ]
    found = ceiling(made, resamples=100)
    assert found is not None
    assert found["value"] == pytest.approx(((share > 0.5) == label).mean(), abs=0.012)
    assert found["beta"] == pytest.approx(true_beta, rel=0.1)
    assert found["rows_with_dissent"] == ((votes == 1) | (votes == 2)).sum() and found["rows_outvoted"] == 0


def test_the_same_guesses_have_the_same_interval(tmp_path: Path) -> None:
    train = [said(f"t{i}.jpg", "cat", "near", "cup", int(i % 3 > 0)) for i in range(30)]
    test = [said(f"{i // 2}.jpg", "dog", "on", THINGS[i % 6], int(i % 5 > 0)) for i in range(60)]
    found = audit(write(tmp_path / "a.jsonl", train), write(tmp_path / "b.jsonl", test), resamples=100).figures[
        "floors"
    ]
    assert found["constant"] == found["majority"] == found["leave_one_out"] == found["opposite"]
    assert found["majority"]["value"] == 0.8


def test_a_ceiling_needs_votes(tmp_path: Path) -> None:
    bare = [{k: v for k, v in row.items() if "vote" not in k} for row in rows("test", 30)]
    found = audit(write(tmp_path / "a.jsonl", bare), write(tmp_path / "b.jsonl", bare), resamples=5).figures
    assert found["label_ceiling"] == {"test": None, "train": None}
    outvoted = [said("a.jpg", "cat", "near", "cup", 0), said("b.jpg", "cat", "near", "cup", 1)]
    found = audit(write(tmp_path / "a.jsonl", outvoted), tmp_path / "a.jsonl", resamples=5).figures
    assert found["label_ceiling"]["test"]["rows_outvoted"] == 1


def test_figures_are_json_and_the_same_again(tmp_path: Path) -> None:
    first, second = (figures(tmp_path, lambda label, i: {"x": i % 3}, resamples=50, seed=4) for _ in range(2))
    json.dumps(first, allow_nan=False)
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert set(first) == {
        "vsre", "audit", "settings", "train", "test", "pictures", "findings", "clean", "floors", "fields",
        "label_ceiling", "balance", "verdict", "seconds",
    }  # fmt: skip


def test_one_line_for_a_report(tmp_path: Path) -> None:
    assert leak_summary("clean") is leak_summary("clean-concepts") is leak_summary(None) is leak_summary("mine") is None
    assert (leak_summary("paper") or "").startswith("Leaky protocol “paper”")
    test = rows("test", 40)
    leaky = audit(write(tmp_path / "a.jsonl", test[:10]), write(tmp_path / "b.jsonl", test), resamples=5)
    line = leak_summary(leaky)
    assert line == leak_summary(leaky.figures) == leak_summary(json.loads(json.dumps(leaky.figures)))
    assert line is not None and line.startswith("LEAKS: 10 of 40 test rows (25.0 %)") and "\n" not in line
    clean = audit(write(tmp_path / "a.jsonl", rows("train", 40)), tmp_path / "b.jsonl", resamples=5)
    assert leak_summary(clean) is None and clean.line == "No leak found by these checks in 40 test rows."
