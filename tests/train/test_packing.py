from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_world import load
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config, Qwen3Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tiny_models import tiny_llava, tiny_vsre
from vsre.errors import VsreError
from vsre.train import ChatEncoder, Example, Packer
from vsre.train.attention import PACKED, BranchAttention, Layout, branch_mask, packed_attention
from vsre.train.packing import shared_prefix

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


def packer(encoder: ChatEncoder) -> Packer:
    return Packer(image_token_id=encoder.image_token_id, visual_tokens=encoder.visual_tokens, pad_id=encoder.pad_id)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def use(model: Any, kind: str) -> BranchAttention:
    """`packed`: what sdpa becomes on a CPU; `sdpa`: the mask it takes elsewhere."""
    model.set_attn_implementation({"text_config": "sdpa" if kind == "packed" else kind})
    attention = BranchAttention(model)
    assert attention.packed == (kind in ("packed", "sdpa"))
    attention.packed = kind == "packed"
    return attention


def packed_loss(model: Any, attention: BranchAttention, batch: dict[str, Any], **inputs: Any) -> torch.Tensor:
    batch = {**batch, **attention.inputs(batch["branch"])}
    del batch["tokens"], batch["branch"]
    with attention.active():
        return model(**batch, **inputs).loss


def loss_alone(model: Any, encoder: ChatEncoder, packs: Any, pictures: torch.Tensor, count: int) -> torch.Tensor:
    """A sequence for each question, plain causal sdpa."""
    alone, plain = torch.zeros((), device=pictures.device), packer(encoder)
    for pack, picture in zip(packs, pictures, strict=True):
        for example in pack:
            single = plain.batch([[example]])
            del single["tokens"]
            assert single.keys() == {"input_ids", "labels"}
            single = {name: value.to(pictures.device) for name, value in single.items()}
            alone = alone + model(**single, pixel_values=picture[None], num_items_in_batch=count).loss
    return alone


def assert_equal_gradients(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], limit: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        error = (ours[name] - theirs[name]).norm() / theirs[name].norm().clamp_min(1e-12)
        assert error < limit or theirs[name].norm() < 1e-7, (name, float(error))


@pytest.mark.parametrize("kind", ["packed", "sdpa", "eager"])
@pytest.mark.parametrize("make", [tiny_llava, tiny_vsre])
def test_loss_and_gradients_equal_a_sequence_for_each_question(make: Any, kind: str, tmp_path: Path) -> None:
    model, processor = load(make(tmp_path))
    attention, encoder = use(model, kind), ChatEncoder(processor)
    pictures = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    packs = [encode(encoder, rows) for rows in QUESTIONS]
    batch = packer(encoder).batch(packs)
    assert batch["tokens"] < sum(len(e.ids) + encoder.visual_tokens for p in packs for e in p)
    packed = packed_loss(model, attention, batch, pixel_values=pictures)
    packed.backward()
    ours = gradients(model)
    use(model, "sdpa")
    alone = loss_alone(model, encoder, packs, pictures, int((batch["labels"] != -100).sum()))
    alone.backward()
    assert abs(packed - alone) / alone < 1e-5
    assert any("adapter" in n or "projector" in n for n in ours)
    assert_equal_gradients(ours, gradients(model))


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("make", [tiny_llava, tiny_vsre])
def test_flex_attention_gives_the_same_loss(make: Any, tmp_path: Path) -> None:
    model, processor = load(make(tmp_path))
    attention, encoder = use(model, "flex_attention"), ChatEncoder(processor)
    pictures = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    packs = [encode(encoder, rows) for rows in QUESTIONS]
    batch = packer(encoder).batch(packs)
    with torch.no_grad():
        packed = packed_loss(model, attention, batch, pixel_values=pictures)
        use(model, "sdpa")
        alone = loss_alone(model, encoder, packs, pictures, int((batch["labels"] != -100).sum()))
    assert abs(packed - alone) / alone < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch's FlexAttention has no backward pass on a CPU")
def test_flex_attention_gives_the_same_gradients(tmp_path: Path) -> None:
    model, processor = load(tiny_llava(tmp_path))
    model, encoder = model.cuda(), ChatEncoder(processor)
    pictures = torch.rand(3, 3, 96, 96, device="cuda")
    packs = [encode(encoder, rows) for rows in QUESTIONS]
    batch = packer(encoder).batch(packs)
    batch = {n: v.cuda() if isinstance(v, torch.Tensor) else v for n, v in batch.items()}
    packed_loss(model, use(model, "flex_attention"), batch, pixel_values=pictures).backward()
    ours = gradients(model)
    use(model, "sdpa")
    count = int((batch["labels"] != -100).sum())
    loss_alone(model, encoder, packs, pictures, count).backward()
    assert_equal_gradients(ours, gradients(model), limit=1e-3)  # its kernels may round products to TF32


@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config, MistralConfig])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_attention_in_other_decoders_with_grouped_heads(config: Any, checkpointing: bool) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 50}
    model = AutoModelForCausalLM.from_config(
        config(**sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=0)
    ).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    attention = BranchAttention(model)
    assert attention.packed
    branch = torch.tensor([[0] * 6 + [1] * 4 + [2] * 2 + [3] * 5, [0] * 6 + [1] * 3 + [2] * 6 + [-1] * 2])
    ids = torch.randint(1, 50, branch.shape)
    positions = torch.tensor([[*range(6), *range(6, 10), 6, 7, *range(6, 11)], [*range(9), *range(6, 12), 0, 0]])
    labels = ids.masked_fill(branch < 1, -100)
    found = []
    for attention.packed in (True, False):
        inputs = attention.inputs(branch)
        with attention.active():
            loss = model(ids, position_ids=positions, labels=labels, use_cache=False, **inputs).loss
            loss.backward()
        found.append((loss.item(), gradients(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_equal_gradients(found[0][1], found[1][1])


def test_packed_attention_drops_what_the_model_wants_dropped() -> None:
    branch = torch.tensor([[0, 0, 1, 1, 2, -1]])
    q, k, v = torch.rand(3, 1, 2, 6, 4).unbind(0)
    found = []
    for attend, rest in ((packed_attention, {"packed_layout": Layout.of(branch)}), (sdpa_attention_forward, {})):
        torch.manual_seed(0)
        found.append(attend(torch.nn.Module(), q, k, v, branch_mask(branch), dropout=0.5, scaling=1.0, **rest)[0])
    assert torch.equal(*found)


def test_the_model_is_left_with_its_own_attention(tmp_path: Path) -> None:
    model, processor = load(tiny_vsre(tmp_path))
    attention, encoder = BranchAttention(model), ChatEncoder(processor)
    batch = packer(encoder).batch([encode(encoder, QUESTIONS[0])])
    kinds = [m.config._attn_implementation for m in model.modules() if hasattr(m, "config")]
    with attention.active():
        inner = {n: m.config._attn_implementation for n, m in model.named_modules() if hasattr(m, "config")}
        assert all((kind == PACKED) == n.startswith("language_model") for n, kind in inner.items())
        model.save_pretrained(tmp_path / "saved")
        with pytest.raises(VsreError, match="how the questions are packed"):
            model(input_ids=batch["input_ids"], image_features=torch.rand(1, encoder.visual_tokens, 32))
    assert kinds == [m.config._attn_implementation for m in model.modules() if hasattr(m, "config")]
    assert PACKED not in (tmp_path / "saved" / "config.json").read_text()


def test_a_layout_finds_every_token_of_every_branch() -> None:
    layout = Layout.of(torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 1, 2, 2, -1]]))
    assert layout.prefix == 2
    assert layout.slots.tolist() == [[0, 1, 2], [3, 3, 3], [4, 4, 4], [5, 6, 6]]
    assert layout.filled.tolist() == [[True] * 3, [True, False, False], [True, False, False], [True, True, False]]
    assert layout.places.tolist() == [0, 1, 2, 3, 6, 9, 10, 0]
    assert layout.alone.tolist() == [False] * 7 + [True]


def test_masks_are_used_wherever_the_model_is_moved() -> None:
    """A Trainer moves the model after it was made ready; the kernels without masks are the CPU's."""
    model = AutoModelForCausalLM.from_config(
        Qwen2Config(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, vocab_size=50, num_attention_heads=4,
            num_key_value_heads=2,
        )
    )  # fmt: skip
    attention = BranchAttention(model)
    assert attention.inputs(torch.tensor([[0, 1]])).keys() == {"packed_layout"}
    model.to("meta")
    assert attention.inputs(torch.tensor([[0, 1]])).keys() == {"attention_mask"}
    with attention.active():
        assert model.config._attn_implementation == "sdpa"


def test_prefixes_of_several_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="several lengths"):
        Layout.of(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]))


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
        inputs = BranchAttention(model).inputs(batch.pop("branch"))
        batch.pop("tokens")
        with torch.no_grad(), BranchAttention(model).active():
            return model(**batch, **inputs, pixel_values=picture).logits[0, -tail:]

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
        BranchAttention(model)


def test_prefixes_of_a_batch_have_one_length(tmp_path: Path) -> None:
    encoder = ChatEncoder(load(tiny_llava(tmp_path))[1])
    batch = packer(encoder).batch([encode(encoder, rows) for rows in QUESTIONS])
    assert len({int(n) for n in (batch["branch"] == 0).sum(1)}) == 1
    assert batch["branch"].amax(1).tolist() == [2, 4, 1]
