"""The figures of `vsre geometry`: intervals are over pictures, whatever the number of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vsre.relations.photo_rules import shipped_rules
from vsre.relations.rule_forms import dump_thresholds, load_thresholds
from vsre.relations.study.figures import PRIOR_PRECISION, figures
from vsre.relations.study.rows import Judged, Row
from vsre.triplets import Triplet

LEFT, RIGHT = (0.1, 0.4, 0.3, 0.6), (0.6, 0.4, 0.8, 0.6)


def row(picture: int, number: int, label: bool = True) -> Row:
    name, caption = f"{picture}.jpg", f"The cat is left of the dog. ({number})"
    votes = {"vote_true_validator_id": [1] * label, "vote_false_validator_id": [1] * (not label)}
    triplet = Triplet(
        f"name:{name}", name, "cat", "left of", "dog", caption, label, "", "vsr", provenance={"audit": votes}
    )
    return Row(triplet, (LEFT,), (RIGHT,))


def test_where_all_are_right_the_doubt_is_that_of_the_pictures() -> None:
    """Ten rows on each of two pictures, all rightly passed, and one false row that is failed."""
    rows = [row(picture, number) for picture in range(2) for number in range(10)] + [row(2, 0, label=False)]
    verdicts = np.array([1] * 20 + [-1])
    judged = Judged(rows, verdicts, verdicts.astype(float), [""] * 21)
    found = figures(judged, [shipped_rules()], resamples=200, seed=0)
    certain = {"value": 1.0, "low": pytest.approx(0.05 ** (1 / 2)), "high": 1.0, "n": 20}
    passed = found["all"]["pass"]
    for figure in ("precision", "recall", "precision_undisputed", PRIOR_PRECISION):
        assert passed[figure] == certain, figure
    assert passed["coverage"]["value"] == pytest.approx(20 / 21) and passed["coverage"]["n"] == 21
    ours = [entry["ours"]["precision"] for entry in found["published"]]
    assert ours and all(figure == certain for figure in ours)


def test_thresholds_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "thresholds.yaml"
    dump_thresholds(file, load_thresholds())
    assert load_thresholds(file) == load_thresholds()
    before = file.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        dump_thresholds(file, load_thresholds())
    assert file.read_text() == before and [*tmp_path.iterdir()] == [file]
