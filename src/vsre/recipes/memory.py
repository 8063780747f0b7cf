"""How much memory a stage takes on each GPU, from shapes alone.

Weights, in bytes per parameter: 4 as loaded (float32). The layers that LoRA adapts are frozen and take 2 if the stage
is in bf16, 0.52 in NF4.

    gradients     4 per trained parameter, and 4 more for the buckets of several processes that share nothing (DDP)
    optimizer     8 per trained parameter (AdamW's two moments); 4 for the matrices that Muon optimises
    bf16 copies   2 per float32 weight that a bf16 stage computes with: autocast keeps them until the backward pass;
                  with checkpointing those of frozen layers are made again, one layer at a time

Activations are what PyTorch keeps for the backward pass of one gated decoder layer (LLaMA, Qwen, SmolLM, Mistral), in
bytes per token, with scaled dot product attention; h is the hidden width, f the inner one, q and k those of all query
and key heads, n the number of heads:

                    trains                              frozen, gradients pass through
    bf16            26 h + 4 q + 4 k + 8 f + 4 n + 8    8 h + 4 q + 4 k +  6 f + 4 n + 8
    float32         24 h + 8 q + 8 k + 16 f + 4 n + 8   8 h + 8 q + 8 k + 12 f + 4 n + 8
    LoRA            the frozen column, plus 2 r and 2 times the inputs of each adapted layer (float32: 4, at most); with
                    dropout one more byte per input

    mask            packed questions: 2 bytes (float32: 4) per pair of tokens and layer
    checkpointing   4 h per token and layer, and all of the above for one layer
    logits          12 bytes per learnt token and word of the vocabulary

These are the tensors that the code keeps (tests count them); temporary kernel workspaces, fragmentation and CUDA itself
are RESERVE. Sharding `full` (FSDP2, ZeRO-3) spreads weights, gradients and optimizer over the processes, and holds two
layers and whatever is outside the layers in full, in the dtype that it computes in.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from vsre.recipes.shape import Shape
from vsre.train import Stage

GB = 1e9
RESERVE = 3 * GB
"""CUDA's context, kernels' workspaces and fragmentation: an assumption, not a measurement."""

NF4 = 4.127 / 8
"""Bytes per value in NF4 with double quantisation (arXiv 2305.14314, section 3)."""

Sharding = Literal["none", "full"]
SHARDINGS: tuple[Sharding, ...] = ("none", "full")
"""In order of communication cost, cheapest first."""


@dataclass(frozen=True)
class OneSequence:
    """One training sequence, in tokens: the picture, its questions with their answers, and only the answers."""

    picture: int
    questions: float
    learnt: float
    packed: bool

    @property
    def tokens(self) -> float:
        return self.picture + self.questions


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU; `a_sequence` is the activations of each sequence of a micro batch."""

    weights: float
    gradients: float
    optimizer: float
    copies: float
    a_sequence: float
    micro_batch: int

    @property
    def activations(self) -> float:
        return self.a_sequence * self.micro_batch

    @property
    def fixed(self) -> float:
        """Bytes that do not grow with the micro batch."""
        return self.weights + self.gradients + self.optimizer + self.copies + RESERVE

    @property
    def total(self) -> float:
        return self.fixed + self.activations

    def as_dict(self) -> dict[str, Any]:
        parts = {k: v for k, v in asdict(self).items() if k not in ("a_sequence", "micro_batch")}
        parts |= {"activations": self.activations, "reserve": RESERVE, "total": self.total}
        return {"micro_batch": self.micro_batch, **{f"{k}_gb": round(v / GB, 1) for k, v in parts.items()}}


def stage_memory(
    shape: Shape, stage: Stage, sequence: OneSequence, micro_batch: int, *, gpus: int = 1, sharding: Sharding = "none"
) -> Memory:
    """Estimate what a stage takes on each of `gpus`, with so many sequences per forward pass."""
    everything = sum(shape.parameters.values())
    low_rank = lora_parameters(shape, stage)
    beneath = _beneath_lora(shape, stage)
    learning = low_rank + sum(
        shape.parameters[group] for group in stage.train if not (group == "llm" and stage.lora is not None)
    )
    if stage.lora is None:
        a_frozen = 4.0
    elif stage.lora.quantise == "4bit":
        a_frozen = NF4
    else:
        a_frozen = 2.0 if stage.bf16 else 4.0
    weights = 4.0 * (everything - beneath + low_rank) + a_frozen * beneath
    gradients = 4.0 * learning
    optimizer = _optimizer_bytes(shape, stage, learning)
    copies = 2.0 * _cast(shape, stage, low_rank, beneath) if stage.bf16 else 0.0
    if sharding == "none":
        gradients *= 2 if gpus > 1 else 1
    else:
        gradients, optimizer = gradients / gpus, optimizer / gpus
        gathered = everything - shape.layers * shape.layer + 2 * shape.layer
        weights, copies = weights / gpus, gathered * (2.0 if stage.bf16 else 4.0)
    return Memory(weights, gradients, optimizer, copies, sequence_bytes(shape, stage, sequence), micro_batch)


def _cast(shape: Shape, stage: Stage, low_rank: int, beneath: int) -> float:
    """Count float32 weights whose bf16 copies are held. Encoders run without gradients: theirs are freed at once."""
    speaks = shape.parameters["llm"] - beneath
    if "llm" not in stage.train and stage.gradient_checkpointing:
        speaks = shape.layer + shape.hidden * shape.vocabulary  # made again for each layer, none is kept
    return float(shape.parameters["adapters"] + low_rank + speaks)


def sequence_bytes(shape: Shape, stage: Stage, sequence: OneSequence) -> float:
    """Estimate the activations of one sequence, in bytes."""
    number = 2 if stage.bf16 else 4
    layer = sequence.tokens * layer_bytes(shape, stage)
    if sequence.packed:
        layer += number * sequence.tokens**2
    kept = layer * shape.layers
    if stage.gradient_checkpointing:
        kept = 4.0 * shape.hidden * sequence.tokens * shape.layers + layer
    # A projector's three layers: the inputs and outputs of each, about 5 widths per token.
    adapter = 5.0 * number * shape.hidden * sequence.picture if "adapters" in stage.train else 0.0
    return kept + adapter + 12.0 * sequence.learnt * shape.vocabulary


def layer_bytes(shape: Shape, stage: Stage) -> float:
    """Estimate the activations of one decoder layer, in bytes per token (the table above)."""
    h, f, q, k, n = shape.hidden, shape.inner, shape.queries, shape.keys, shape.heads
    number = 2 if stage.bf16 else 4
    attention = 2 * number * (q + k) + 4 * n + 8
    if "llm" not in stage.train:
        return 8 * h + attention + 3 * number * f
    if stage.lora is None:
        return (26 if stage.bf16 else 24) * h + attention + 4 * number * f
    inputs = sum(found for found, _ in _targets(shape, stage))
    a_layer = number * (inputs + stage.lora.rank * len(_targets(shape, stage)))
    return 8 * h + attention + 3 * number * f + a_layer + (inputs if stage.lora.dropout else 0)


def lora_parameters(shape: Shape, stage: Stage) -> int:
    """Return how many values a stage's low-rank layers have: rank x (inputs + outputs) of each."""
    if stage.lora is None:
        return 0
    return shape.layers * stage.lora.rank * sum(i + o for i, o in _targets(shape, stage))


def _targets(shape: Shape, stage: Stage) -> list[tuple[int, int]]:
    assert stage.lora is not None
    every = stage.lora.targets == "all-linear"
    return [sizes for name, sizes in shape.linear if every or name in stage.lora.targets]


def _beneath_lora(shape: Shape, stage: Stage) -> int:
    """Return the number of parameters of the layers that LoRA adapts."""
    return 0 if stage.lora is None else shape.layers * sum(i * o for i, o in _targets(shape, stage))


def _optimizer_bytes(shape: Shape, stage: Stage, learning: int) -> float:
    if stage.optimizer == "adamw" or stage.lora is not None:
        return 8.0 * learning
    matrices = shape.layers * sum(i * o for _, (i, o) in shape.linear) if "llm" in stage.train else 0
    return 8.0 * (learning - matrices) + 4.0 * matrices


def fitting(memory: Memory, room: float, share: int) -> int:
    """Return the largest micro batch (or 0) that fits in `room` bytes and divides `share`, a GPU's sequences a step."""
    most = int((room - memory.fixed) // memory.a_sequence)
    return next((micro for micro in range(min(most, share), 0, -1) if share % micro == 0), 0)
