"""The safety checker on a real classifier of transformers, random and tiny."""

import pickle
from pathlib import Path

import pytest
import torch
from quick_painter import picture
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from vsre.errors import VsreError
from vsre.repaint.safety import SafetyChecker, SafetySpec


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8,
        id2label={0: "normal", 1: "nsfw"}, label2id={"normal": 0, "nsfw": 1},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_scores_are_probabilities_of_the_class(classifier: Path) -> None:
    pictures = [picture("a"), picture("b"), picture("c")]
    checker = SafetyChecker(SafetySpec(model=str(classifier)))
    scores = checker.scores(pictures)
    other = SafetyChecker(SafetySpec(model=str(classifier), label="normal")).scores(pictures)
    assert len(set(scores)) == 3 and [a + b for a, b in zip(scores, other, strict=True)] == pytest.approx([1, 1, 1])
    assert checker.scores([]) == []
    assert pickle.loads(pickle.dumps(checker)).scores(pictures) == pytest.approx(scores)


def test_what_cannot_check_is_told(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="no class 'gore'; it has normal, nsfw"):
        SafetyChecker(SafetySpec(model=str(classifier), label="gore")).scores([picture("a")])
    with pytest.raises(VsreError, match="cannot be loaded as an image classifier"):
        SafetyChecker(SafetySpec(model=str(tmp_path))).scores([picture("a")])
