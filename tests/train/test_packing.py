from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_world import load

from tiny_models import tiny_llava, tiny_vsre
from vsre.errors import VsreError
from vsre.train import ChatEncoder, Example, Packer
from vsre.train.packing import branch_mask, packing_mask_dtype, shared_prefix

QUESTIONS = [
    [
        ("Is the cat left of the dog?", "Yes"),
        ("Is the cat above the dog? Answer yes or no.", "No, it is not above it."),
    ],
    [
        ("True or false: a cat.", "False"),
        ("Is it?", "No"),
        ("Is the teddy bear in the couch, or not?", "Yes"),
        ("Is it?", "Yes"),
    ],
    [("A. yes B. no", "A")],
]


def encode(encoder: ChatEncoder, rows: list[tuple[str, str]]) -> list[Example]:
    return encoder.encode([str(i) for i in range(len(rows))], [p for p, _ in rows], [a for _, a in rows])


def packer(encoder: ChatEncoder, **kwargs: Any) -> Packer:
    return Packer(
        image_token_id=encoder.image_token_id,
        visual_tokens=encoder.visual_tokens,
        pad_id=encoder.pad_id,
        **kwargs,
    )


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [tiny_llava, tiny_vsre])
def test_loss_and_gradients_equal_a_sequence_for_each_question(make: Any, attention: str, tmp_path: Path) -> None:
    model, processor = load(make(tmp_path))
    model.set_attn_implementation(attention)
    encoder = ChatEncoder(processor)
    pictures = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    packs = [encode(encoder, rows) for rows in QUESTIONS]
    batch = packer(encoder, additive=packing_mask_dtype(model, 12)).batch(packs)
    assert batch["attention_mask"].shape[1] == 1
    assert batch.pop("tokens") < sum(len(e.ids) + encoder.visual_tokens for p in packs for e in p)
    packed = model(**batch, pixel_values=pictures).loss
    packed.backward()
    ours = gradients(model)

    alone, count = torch.zeros(()), int((batch["labels"] != -100).sum())
    plain = packer(encoder)
    for pack, picture in zip(packs, pictures, strict=True):
        for example in pack:
            single = plain.batch([[example]])
            single.pop("tokens")
            assert single["attention_mask"].dim() == 2
            alone = alone + model(**single, pixel_values=picture[None], num_items_in_batch=count).loss
    alone.backward()
    theirs = gradients(model)
    assert abs(packed - alone) / alone < 1e-5
    assert ours.keys() == theirs.keys()
    assert any("adapter" in n or "projector" in n for n in ours)
    for name in ours:
        error = (ours[name] - theirs[name]).norm() / theirs[name].norm().clamp_min(1e-12)
        assert error < 1e-5 or theirs[name].norm() < 1e-7, (name, float(error))


def test_branches_do_not_see_each_other() -> None:
    mask = branch_mask(torch.tensor([[0, 0, 1, 1, 2, -1]]))[0, 0]
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]
    assert mask.int().tolist() == expected


def test_changing_one_question_leaves_the_others_logits_alone(tmp_path: Path) -> None:
    model, processor = load(tiny_llava(tmp_path))
    encoder = ChatEncoder(processor)
    picture = torch.rand(1, 3, 96, 96)

    def logits(first: str) -> torch.Tensor:
        batch = packer(encoder).batch([encode(encoder, [(first, "Yes"), ("Is the dog there?", "No")])])
        tail = len(encode(encoder, [("Is the dog there?", "No")])[0].ids) - 8
        batch.pop("tokens")
        with torch.no_grad():
            return model(**batch, pixel_values=picture).logits[0, -tail:]

    assert torch.equal(logits("Is the cat left?"), logits("Is the car left?"))


def test_the_shared_prefix_stops_before_the_token_that_predicts_an_answer() -> None:
    def example(ids: list[int], first: int) -> Example:
        return Example(np.array(ids, dtype=np.int32), first, len(ids))

    same_prompt = [example([1, 9, 5, 6, 7, 2], 4), example([1, 9, 5, 6, 8, 2], 4)]
    assert shared_prefix(same_prompt) == 3
    assert shared_prefix([example([1, 9, 5, 6, 7], 4), example([1, 9, 4, 6, 7], 4)]) == 2
    assert shared_prefix([example([1, 9, 5], 2)]) == 1
    row = Packer(image_token_id=9, visual_tokens=3, pad_id=0).sequence(same_prompt)
    assert row["ids"].tolist() == [1, 9, 9, 9, 5, 6, 7, 2, 6, 8, 2]
    assert row["positions"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7]
    assert row["labels"].tolist() == [-100] * 6 + [7, 2, -100, 8, 2]
    assert row["branch"].tolist() == [0] * 5 + [1] * 3 + [2] * 3


def test_a_template_with_the_image_last_cannot_share_it() -> None:
    late = [Example(np.array([1, w, 9, 3, 7], dtype=np.int32), 4, 5) for w in (4, 5)]
    pack = Packer(image_token_id=9, visual_tokens=3, pad_id=0)
    with pytest.raises(VsreError, match="questions_per_image: 1"):
        pack.sequence(late)
    assert pack.sequence(late[:1])["ids"].tolist() == [1, 4, 9, 9, 9, 3, 7]


def test_attention_that_cannot_mask_branches_is_refused(tmp_path: Path) -> None:
    model, _ = load(tiny_llava(tmp_path))
    model.config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(VsreError, match="sdpa"):
        packing_mask_dtype(model, 2)
    assert packing_mask_dtype(model, 1) is None
