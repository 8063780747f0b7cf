"""How a model does on what the training data hold already."""

from pathlib import Path

import pytest
from diagnose_data import Scripted, make_triplets, write_data

from vsre.diagnose import Prompt, Reply, diagnose


def test_trained_rows_trained_images_and_new_ones(tmp_path: Path) -> None:
    test = make_triplets(6)  # two statements of each picture
    # The row of picture 0, the picture of 1 with another caption; the others are new.
    train = [test[0], test[2].replace(caption="The cup is on the table.", subject="cup", relation="on", object="table")]

    def rule(prompt: Prompt) -> Reply:
        return Reply("yes" if test[0].subject in prompt.text else "no")

    data, learnt = write_data(tmp_path / "test", test), write_data(tmp_path / "train", train)
    found = diagnose(Scripted(rule), data, ["test-s"], tmp_path / "run", train_path=learnt, progress=False)
    by = found["by_training"]
    assert {name: row["n"] for name, row in by.items()} == {"new image": 8, "training image": 3, "training row": 1}
    assert by["training row"]["acc_t"]["value"] == float(test[0].label)
    total = sum(row["n"] * row["acc_t"]["value"] for row in by.values())
    assert total == pytest.approx(12 * found["test_s"]["acc_t"]["value"])
    clean = diagnose(Scripted(rule), data, ["test-s"], tmp_path / "clean", progress=False)
    assert "by_training" not in clean
