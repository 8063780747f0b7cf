"""How long a stage trains: floating-point operations divided by the share of its peak that a GPU is assumed to reach.

Operations of one sequence, P the parameters of the decoder layers and T its tokens: 2 P T forward, as many backward for
the gradients that pass through, and as many for those of the weights, which LoRA and frozen language models do without.
Attention adds 4 x width x pairs x layers forward and twice that backward, where pairs are of tokens that may attend to
each other. The output layer counts at learnt tokens. Checkpointing runs the layers forward once more. Encoders run
forward, once per picture if their features are kept. Loading, painting, saving and diagnosis are not included.
"""

from __future__ import annotations

from dataclasses import dataclass

from vsre.recipes.memory import OneSequence, lora_parameters
from vsre.recipes.shape import Shape
from vsre.train import Stage

PEAKS: dict[str, float] = {
    "a100": 312e12,
    "h100": 989e12,
    "h200": 989e12,
    "b200": 2250e12,
    "l40s": 362e12,
    "rtx4090": 165e12,
}
"""Dense bf16 operations per second, from NVIDIA's data sheets (without sparsity)."""
PEAKS_FLOAT32: dict[str, float] = {
    "a100": 19.5e12,
    "h100": 67e12,
    "h200": 67e12,
    "b200": 75e12,
    "l40s": 91.6e12,
    "rtx4090": 82.6e12,
}
"""The same in float32, from the same sheets: without bf16 a stage trains in it, as torch leaves TF32 off."""

ASSUMED = 0.4
"""Share of the peak by default: what well-tuned training of this size reaches; not measured here."""


@dataclass(frozen=True)
class Amount:
    """How much a stage processes: its steps, and the pictures whose features are computed once (None: every time)."""

    steps: int
    pictures: int | None


def sequence_flops(shape: Shape, stage: Stage, sequence: OneSequence, questions: float) -> tuple[float, float]:
    """Return (operations that count, operations run) for one sequence of so many questions, without encoders."""
    p, t = float(shape.layers * shape.layer), sequence.tokens
    asked = sequence.questions / max(questions, 1.0)
    pairs = sequence.picture**2 / 2 + sequence.questions * sequence.picture + questions * asked**2 / 2
    attention = 4.0 * shape.queries * pairs * shape.layers
    head = 2.0 * shape.hidden * shape.vocabulary * sequence.learnt
    adapter = 2.0 * shape.parameters["adapters"] * sequence.picture
    weights = stage.lora is None and "llm" in stage.train
    low_rank = 2.0 * lora_parameters(shape, stage) * t
    forward = 2.0 * p * t + attention + head + adapter + low_rank
    counted = forward + 2.0 * p * t + 2 * attention + head
    counted += (2.0 * p * t + head) * weights + 2 * adapter * ("adapters" in stage.train) + 2 * low_rank
    return counted, counted + (2.0 * p * t + attention if stage.gradient_checkpointing else 0.0)


def stage_hours(
    shape: Shape,
    stage: Stage,
    sequence: OneSequence,
    questions: float,
    amount: Amount,
    *,
    gpus: int,
    gpu: str,
    utilisation: float,
) -> float:
    """Estimate the hours of a stage on `gpus` of this kind."""
    _, run = sequence_flops(shape, stage, sequence, questions)
    sequences = amount.steps * stage.batch_images
    seen = sequences if amount.pictures is None else amount.pictures
    total = sequences * run + seen * shape.picture_flops * (3 if "encoders" in stage.train else 1)
    return total / (peak(gpu, bf16=stage.bf16) * utilisation * gpus) / 3600


def peak(gpu: str, *, bf16: bool) -> float:
    """Return the peak operations per second of a kind of GPU."""
    return (PEAKS if bf16 else PEAKS_FLOAT32)[gpu]
