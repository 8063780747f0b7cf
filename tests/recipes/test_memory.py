"""Memory and hours: against sums done by hand, and against the tensors that PyTorch really keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, LlamaConfig

from vsre.recipes.hours import PEAKS, PEAKS_FLOAT32, Amount, sequence_flops, stage_hours
from vsre.recipes.hub import Checkpoints, shapes
from vsre.recipes.memory import (
    GB,
    NF4,
    RESERVE,
    OneSequence,
    fitting,
    layer_bytes,
    lora_parameters,
    sequence_bytes,
    stage_memory,
)
from vsre.recipes.schema import Start
from vsre.recipes.shape import Shape, shape_of
from vsre.train import DataSource, Stage

FOUR = ["clip", "siglip", "dinov2", "sam"]
DATA = (DataSource(triplets=Path("t"), questions=Path("q")),)
PICTURE = OneSequence(picture=1817, questions=8 * 80.0, learnt=8 * 24.0, packed=True)


def stage(**more: Any) -> Stage:
    usual = {"name": "s", "train": ["adapters", "llm"], "data": DATA, "bf16": True, "batch_images": 128}
    return Stage.model_validate(usual | more)


@pytest.fixture(scope="module")
def vsre() -> Callable[[str], Shape]:
    found = {
        size: shape_of(Start(llm=f"llava-hf/llava-1.5-{size}-hf", encoders=FOUR), Checkpoints(online=False))  # type: ignore[list-item]
        for size in ("7b", "13b")
    }
    return found.__getitem__


@pytest.mark.parametrize("name", shapes())
def test_the_packaged_shapes_have_the_sizes_of_the_models(name: str) -> None:
    entry = shapes()[name]
    loader = AutoModelForImageTextToText if "picture_tokens" in entry else AutoModelForCausalLM
    with torch.device("meta"):
        model = loader.from_config(AutoConfig.for_model(**entry["config"]))
    assert sum(p.numel() for p in model.parameters()) == entry["parameters"]


def test_the_shape_of_vsre_7b(vsre: Callable[[str], Shape]) -> None:
    shape = vsre("7b")
    assert shape.picture_tokens == 1817 and shape.packs and not shape.guessed
    # 32 layers of 4 x 4096^2 + 3 x 4096 x 11008 + 2 norms, two embeddings of 32064 words, a norm.
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert shape.layer == layer
    assert shape.parameters["llm"] == 32 * layer + 2 * 32064 * 4096 + 4096
    # Projectors: c x 4096 + 4096, twice 4096^2 + 4096; SAM's two 3 x 3 convolutions and a linear layer.
    projectors = sum(c * 4096 + 2 * 4096**2 + 3 * 4096 for c in (1024, 1152, 768))
    sam = 256 * 512 * 9 + 512 + 512 * 1024 * 9 + 1024 + 1024 * 4096 + 4096
    assert shape.parameters["adapters"] == projectors + sam


def test_stage_2_of_7b_and_13b_by_hand(vsre: Callable[[str], Shape]) -> None:
    # 7B: llm 6.739e9, adapters 0.119e9, encoders 0.908e9, all as float32.
    whole = stage_memory(vsre("7b"), stage(), PICTURE, 2)
    assert whole.weights / GB == pytest.approx(4 * (6.739 + 0.119 + 0.908), rel=1e-3)
    assert whole.gradients / GB == pytest.approx(4 * 6.858, rel=1e-3)
    assert whole.optimizer / GB == pytest.approx(8 * 6.858, rel=1e-3)
    assert whole.copies / GB == pytest.approx(2 * 6.858, rel=1e-3)
    # A layer and token: 26 x 4096 + 4 x 4096 + 4 x 4096 + 8 x 11008 + 4 x 32 + 8 = 227,464 bytes; mask 2 x 2457^2.
    # Adapters 5 x 2 x 4096 x 1817, logits 12 x 192 x 32064.
    by_hand = 32 * (2457 * 227_464 + 2 * 2457**2) + 10 * 4096 * 1817 + 12 * 192 * 32064
    assert whole.activations == pytest.approx(2 * by_hand)
    assert whole.total == pytest.approx(
        whole.weights + whole.gradients + whole.optimizer + whole.copies + 2 * by_hand + RESERVE
    )
    # 13B, checkpointed, eight processes: 13.017 + 0.184 learn, 14.108 in all.
    spread = stage_memory(vsre("13b"), stage(gradient_checkpointing=True), PICTURE, 1, gpus=8, sharding="full")
    assert spread.weights / GB == pytest.approx(4 * 14.108 / 8, rel=1e-3)
    assert spread.gradients / GB == pytest.approx(4 * 13.200 / 8, rel=1e-3)
    assert spread.optimizer / GB == pytest.approx(8 * 13.200 / 8, rel=1e-3)
    layer = 2457 * (26 * 5120 + 8 * 5120 + 8 * 13824 + 4 * 40 + 8) + 2 * 2457**2
    by_hand = 40 * 4 * 5120 * 2457 + layer + 10 * 5120 * 1817 + 12 * 192 * 32064
    assert spread.activations == pytest.approx(by_hand)


def test_stage_1_holds_no_copy_of_the_language_model_under_checkpointing(vsre: Callable[[str], Shape]) -> None:
    shape, align = vsre("7b"), {"train": ["adapters"]}
    kept = stage_memory(shape, stage(**align), PICTURE, 1)
    made_again = stage_memory(shape, stage(**align, gradient_checkpointing=True), PICTURE, 1)
    assert kept.gradients == made_again.gradients == 4.0 * shape.parameters["adapters"]
    assert kept.copies == 2.0 * (shape.parameters["llm"] + shape.parameters["adapters"])
    assert made_again.copies == 2.0 * (shape.parameters["adapters"] + shape.layer + 4096 * 32064)
    assert stage_memory(shape, stage(**align), PICTURE, 1, gpus=8).gradients == 2 * kept.gradients, "DDP's buckets"


def test_13b_with_lora_fits_into_80_gb(vsre: Callable[[str], Shape]) -> None:
    shape, low = vsre("13b"), stage(lora={}, train=["llm"])
    inputs = 4 * 5120 + 2 * 5120 + 13824
    outputs = 4 * 5120 + 2 * 13824 + 5120
    assert lora_parameters(shape, low) == 40 * 128 * (inputs + outputs) == 500_695_040
    memory = stage_memory(shape, low, PICTURE, 1)
    beneath = 40 * (4 * 5120**2 + 3 * 5120 * 13824)
    others = sum(shape.parameters.values()) - beneath + 500_695_040
    assert memory.weights == 2.0 * beneath + 4.0 * others
    assert memory.gradients == 4.0 * 500_695_040 and memory.optimizer == 8.0 * 500_695_040
    assert memory.total < 80 * GB
    four_bits = stage_memory(shape, stage(lora={"quantise": "4bit"}, train=["llm"]), PICTURE, 1)
    assert memory.weights - four_bits.weights == pytest.approx((2 - NF4) * beneath)


def test_muon_keeps_one_moment_of_the_matrices(vsre: Callable[[str], Shape]) -> None:
    shape = vsre("7b")
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    learning = shape.parameters["llm"] + shape.parameters["adapters"]
    memory = stage_memory(shape, stage(optimizer="muon"), PICTURE, 1)
    assert memory.optimizer == 8.0 * learning - 4.0 * matrices


def small(**more: int) -> LlamaConfig:
    sizes = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaConfig(vocab_size=50, **{"num_hidden_layers": 2, **sizes, **more})


def shape_from(config: LlamaConfig) -> Shape:
    width = config.hidden_size // config.num_attention_heads
    model = AutoModelForCausalLM.from_config(config)
    linear = tuple(
        (name.rpartition(".")[2], (m.in_features, m.out_features))
        for name, m in model.model.layers[0].named_modules()
        if isinstance(m, torch.nn.Linear)
    )
    return Shape(
        parameters={"encoders": 0, "adapters": 0, "llm": sum(p.numel() for p in model.parameters())},
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        queries=config.hidden_size,
        keys=width * config.num_key_value_heads,
        vocabulary=config.vocab_size,
        positions=1024,
        picture_tokens=1,
        guessed=False,
        picture_flops=0.0,
        layer=sum(p.numel() for p in model.model.layers[0].parameters()),
        linear=linear,
        packs=True,
    )


def kept_bytes(config: LlamaConfig, chosen: Stage, tokens: int) -> int:
    """Bytes of the tensors that autograd keeps of one sequence, weights and their copies left out."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    model.requires_grad_("llm" in chosen.train and chosen.lora is None)
    if chosen.lora is not None:
        from peft import LoraConfig
        from peft.tuners.lora import LoraLayer, LoraModel

        low = LoraConfig(r=chosen.lora.rank, lora_dropout=chosen.lora.dropout, target_modules="all-linear")
        LoraModel(model, low, "default")
        for layer in model.modules():
            if isinstance(layer, LoraLayer) and chosen.bf16:
                layer.base_layer.to(torch.bfloat16)
    if chosen.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    sizes = {p.numel() for p in model.parameters()}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        at = tensor.untyped_storage().data_ptr()
        copy_of_weight = tensor.numel() in sizes and tokens not in tensor.shape
        if at not in weights and not copy_of_weight:
            kept[at] = tensor
        return tensor

    embedded = torch.randn(1, tokens, config.hidden_size, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=chosen.bf16),
    ):
        model.model(inputs_embeds=embedded, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("trains", ["llm", "adapters", "lora"])
@pytest.mark.parametrize("keys", [4, 2])
def test_a_layer_keeps_what_is_reckoned(bf16: bool, trains: str, keys: int) -> None:
    more: dict[str, Any] = {"lora": {"rank": 4, "dropout": 0.0}, "lr": 1.0} if trains == "lora" else {}
    if more:
        pytest.importorskip("peft")
    chosen = stage(train=["adapters"] if trains == "adapters" else ["llm"], bf16=bf16, **more)
    config, tokens = small(num_key_value_heads=keys), 96
    three, one = (kept_bytes(small(num_key_value_heads=keys, num_hidden_layers=n), chosen, tokens) for n in (3, 1))
    a_layer = (three - one) / 2 / tokens
    reckoned = layer_bytes(shape_from(config), chosen)
    if trains == "lora" and not bf16:
        assert a_layer <= reckoned < 1.5 * a_layer, "in float32 layers share their inputs, so this is the most"
    else:
        assert reckoned == pytest.approx(a_layer, rel=1e-6)


def test_checkpointing_keeps_what_goes_into_each_layer() -> None:
    chosen, tokens = stage(gradient_checkpointing=True, train=["llm"]), 96
    three, one = (kept_bytes(small(num_hidden_layers=n), chosen, tokens) for n in (3, 1))
    shape = shape_from(small())
    sequence = OneSequence(1, tokens - 1.0, 0.0, packed=False)
    two_layers = sequence_bytes(replace(shape, layers=3), chosen, sequence) - sequence_bytes(
        replace(shape, layers=1), chosen, sequence
    )
    assert three - one == two_layers == 2 * 4 * 64 * tokens


def test_the_largest_batch_that_fits(vsre: Callable[[str], Shape]) -> None:
    memory = stage_memory(vsre("7b"), stage(gradient_checkpointing=True), PICTURE, 1, gpus=8, sharding="full")
    for share in (2, 16, 30):
        micro = fitting(memory, 80 * GB, share)
        assert share % micro == 0 and memory.fixed + micro * memory.a_sequence <= 80 * GB
        larger = next((m for m in range(micro + 1, share + 1) if share % m == 0), None)
        assert larger is None or memory.fixed + larger * memory.a_sequence > 80 * GB
    assert fitting(memory, memory.fixed, 16) == 0


def test_operations_by_hand(vsre: Callable[[str], Shape]) -> None:
    shape = vsre("7b")
    p, t = 32 * shape.layer, PICTURE.tokens
    pairs = 1817**2 / 2 + 640 * 1817 + 8 * 80**2 / 2
    attention, head = 4 * 4096 * pairs * 32, 2 * 4096 * 32064 * 192
    adapter = 2 * shape.parameters["adapters"] * 1817
    counted, run = sequence_flops(shape, stage(), PICTURE, 8)
    assert counted == run == pytest.approx(6 * p * t + 3 * attention + 3 * head + 3 * adapter)
    counted, run = sequence_flops(shape, stage(train=["adapters"], gradient_checkpointing=True), PICTURE, 8)
    assert counted == pytest.approx(4 * p * t + 3 * attention + 2 * head + 3 * adapter), "no gradients of weights"
    assert run - counted == pytest.approx(2 * p * t + attention)
    low, _ = sequence_flops(shape, stage(train=["llm"], lora={"rank": 8}), PICTURE, 8)
    extra = 6 * lora_parameters(shape, stage(train=["llm"], lora={"rank": 8})) * t
    assert low == pytest.approx(4 * p * t + 3 * attention + 2 * head + adapter + extra)


def test_hours_are_operations_over_pace(vsre: Callable[[str], Shape]) -> None:
    shape, chosen = vsre("7b"), stage()
    machine: dict[str, Any] = {"gpus": 8, "gpu": "h100", "utilisation": 0.4}
    hours = stage_hours(shape, chosen, PICTURE, 8, Amount(100, 0), **machine)
    _, run = sequence_flops(shape, chosen, PICTURE, 8)
    assert hours == pytest.approx(100 * 128 * run / (PEAKS["h100"] * 0.4 * 8) / 3600)
    seen = stage_hours(shape, chosen, PICTURE, 8, Amount(100, None), **machine)
    # 2 x parameters x patches: CLIP 24^2, SigLIP 27^2, DINOv2 16^2, SAM 64^2.
    assert (seen - hours) * 3600 * PEAKS["h100"] * 0.4 * 8 == pytest.approx(100 * 128 * shape.picture_flops)
    slow = stage_hours(shape, stage(bf16=False), PICTURE, 8, Amount(100, 0), **machine)
    assert slow == pytest.approx(hours * PEAKS["h100"] / PEAKS_FLOAT32["h100"]), "torch leaves TF32 off"
