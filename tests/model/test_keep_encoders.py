from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vsre.errors import VsreError
from vsre.model import keep_encoders
from vsre.recipes.schema import EncoderChoice
from vsre.recipes.start import open_model


def test_a_model_with_some_encoders_shares_all_other_weights(tiny_vsre_folder: Path, tmp_path: Path) -> None:
    whole, processor = open_model(str(tiny_vsre_folder), None, [], seed=0)
    kept, smaller = keep_encoders(whole, processor, ["sam", "clip"])
    assert [spec.name for spec in kept.config.specs] == ["clip", "sam"]
    assert kept.config.image_tokens == sum(s.tokens for s in whole.config.specs if s.name in ("clip", "sam"))
    assert smaller.num_image_tokens == kept.config.image_tokens < processor.num_image_tokens
    assert {n for n, _ in whole.named_parameters()} > {n for n, _ in kept.named_parameters()}
    mine = dict(whole.named_parameters())
    assert all(parameter is mine[name] for name, parameter in kept.named_parameters())
    kept.save_pretrained(tmp_path / "kept")
    smaller.save_pretrained(tmp_path / "kept")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "kept")
    opened = AutoProcessor.from_pretrained(tmp_path / "kept")
    assert opened.num_image_tokens == smaller.num_image_tokens
    frame = torch.rand(1, 3, kept.config.frame_size, kept.config.frame_size)
    ids = torch.tensor([[kept.config.image_token_id] * kept.config.image_tokens + [5, 6]])
    with torch.no_grad():
        a, b = (m(input_ids=ids, pixel_values=frame).logits for m in (kept, again))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("names", "said"), [(["clip", "dino"], "encoder 'dino'"), (["sam"], None)])
def test_names_that_it_does_not_have_are_refused(tiny_vsre_folder: Path, names: list[str], said: str | None) -> None:
    if said is None:
        model, _ = open_model(str(tiny_vsre_folder), None, names, seed=0)
        assert list(model.encoders) == names
        return
    with pytest.raises(VsreError, match=said):
        open_model(str(tiny_vsre_folder), None, names, seed=0)


def test_encoders_that_are_kept_keep_their_size(tiny_vsre_folder: Path) -> None:
    with pytest.raises(VsreError, match=r"encoder clip: .* keeps its encoders as they are"):
        open_model(str(tiny_vsre_folder), None, [EncoderChoice(id="sam"), EncoderChoice(id="clip", tokens=4)], seed=0)


def test_a_llava_model_has_no_encoders_to_choose_from(tiny_llava_folder: Path) -> None:
    with pytest.raises(VsreError, match="only a VSRE model"):
        open_model(str(tiny_llava_folder), None, ["clip"], seed=0)
