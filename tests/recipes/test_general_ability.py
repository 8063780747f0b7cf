"""What a model knows beside relations: names of things, alone and in descriptions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vsre.model import resolve_checkpoint
from vsre.recipes.general import described, general_ability, named_things_f1


@pytest.mark.parametrize(
    ("text", "there", "f1"),
    [
        ("A cat and a hot dog.", {"cat", "hot dog"}, 1.0),
        ("A cat. The Cat sleeps.", {"cat", "dog"}, 2 / 3),
        ("A hot dog.", {"dog"}, 0.0),  # the longer name is what was said
        ("Cattle in the scattered hay.", {"cat"}, 0.0),  # a name within a word is none
        ("", {"cat"}, 0.0),
        ("Nothing.", set(), 1.0),
        ("A cat and a car.", set(), 0.0),
    ],
)
def test_things_that_a_description_names(text: str, there: set[str], f1: float) -> None:
    assert named_things_f1(text, there) == pytest.approx(f1)


def test_the_shipped_base_names_things_and_a_beheaded_one_does_not(tmp_path: Path) -> None:
    path = resolve_checkpoint("zoo:base")
    model, processor = AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)
    found = described(model, processor, tmp_path, pictures=12)
    assert found["captions"]["n"] == 12 and 0 < found["naming"]["n"] <= 12
    assert found["naming"]["value"] > 0.3 and found["captions"]["value"] > 0.5
    assert found == described(model, processor, tmp_path, pictures=12)
    model.get_output_embeddings().weight.data.zero_()
    assert described(model, processor, tmp_path, pictures=12)["captions"]["value"] == 0


def test_fewer_are_asked_together_where_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = resolve_checkpoint("zoo:base")
    model, processor = AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)
    side, whole = processor.tokenizer.padding_side, general_ability(model, processor, tmp_path, pictures=9)
    generate, asked = model.generate, []

    def small(**inputs: Any) -> Any:
        asked.append(len(inputs["input_ids"]))
        if asked[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", small)
    room = 5
    assert general_ability(model, processor, tmp_path, pictures=9) == whole
    assert asked == [18, 9, 4, 4, 4, 4, 2]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        general_ability(model, processor, tmp_path, pictures=2)
    assert processor.tokenizer.padding_side == side
