"""What each stage of a recipe takes on a given machine, and what to change if it does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from vsre.errors import VsreError
from vsre.recipes.hours import ASSUMED, PEAKS, Amount, stage_hours
from vsre.recipes.memory import GB, RESERVE, SHARDINGS, Memory, OneSequence, Sharding, fitting, stage_memory
from vsre.recipes.near import nearest
from vsre.recipes.schema import ModelSpec, Recipe
from vsre.recipes.shape import Shape
from vsre.recipes.validate import Findings
from vsre.recipes.workload import Counts, data_counts, longest_sequence, questions_a_sequence, source_counts
from vsre.train import Stage


@dataclass(frozen=True)
class Machine:
    """GPUs that share a step: how many, of which kind, with how many bytes, and the share of their peak assumed."""

    gpus: int = 8
    gpu: str = "h100"
    room: float = 80 * GB
    utilisation: float = ASSUMED
    sharding: Sharding | Literal["auto"] = "auto"

    @classmethod
    def of(cls, *, gpus: int, gpu: str, memory: float, utilisation: float, sharding: str) -> Machine:
        """Make a machine from a user's options, `memory` in GB. Raises VsreError for an unknown GPU or sharding."""
        if gpu not in PEAKS:
            raise VsreError(f"unknown GPU {gpu!r}. {nearest(gpu, PEAKS)}")
        ways: dict[str, Sharding | Literal["auto"]] = {"auto": "auto", **{way: way for way in SHARDINGS}}
        if sharding not in ways:
            raise VsreError(f"unknown sharding {sharding!r}. {nearest(sharding, ways)}")
        return cls(gpus, gpu, memory * GB, utilisation, ways[sharding])

    def assumptions(self) -> str:
        """Return what the figures depend on, in words."""
        return (
            f"{self.gpus} x {self.gpu} with {self.room / GB:.0f} GB, {RESERVE / GB:.0f} of them reserved; assumed are "
            f"{self.utilisation:.0%} of {PEAKS[self.gpu] / 1e12:.0f} TFLOP/s in bf16. Estimates, not measurements"
        )


@dataclass(frozen=True)
class StageEstimate:
    """One stage of one model. `hours` is None if the data are not available."""

    model: str
    stage: str
    trains: str
    tokens: int
    sharding: Sharding
    memory: Memory
    fits: bool
    hours: float | None
    advice: str

    def as_dict(self) -> dict[str, Any]:
        row = {k: getattr(self, k) for k in ("model", "stage", "trains", "tokens", "sharding", "fits", "advice")}
        return row | self.memory.as_dict() | {"hours": None if self.hours is None else round(self.hours, 2)}


def estimate(recipe: Recipe, found: Findings, machine: Machine) -> list[StageEstimate]:
    """Return memory and hours of every stage whose model's shape is known; adds a fault for each that does not fit."""
    source = source_counts(recipe)
    counts = {name: data_counts(spec, source) for name, spec in recipe.data.items() if name in found.lengths}
    rows = []
    for model in recipe.models:
        shape = found.shapes.get(recipe.root(model).name)
        for stage, raw in zip(model.parsed_stages(), model.stages, strict=True):
            lengths = [found.lengths[name] for name in raw["data"] if name in found.lengths]
            if shape is None or len(lengths) < len(raw["data"]):
                continue
            try:
                micro, _ = stage.micro_batch(machine.gpus)
            except VsreError:  # reported by `check`
                continue
            row = _fit(model, stage, shape, longest_sequence(shape, stage, lengths), micro, machine)
            hours = _hours(shape, stage, raw["data"], found, counts, machine, recipe.feature_cache)
            rows.append(StageEstimate(**vars(row) | {"hours": hours}))
            if not row.fits:
                found.fault(f"{model.name}, stage {stage.name}: {row.advice}")
    if any("encoders" in stage.train for model in recipe.models for stage in model.parsed_stages()):
        found.note("Activations of encoders that train are not counted.")
    return rows


def _fit(
    model: ModelSpec, stage: Stage, shape: Shape, longest: OneSequence, micro: int, machine: Machine
) -> StageEstimate:
    """Estimate the stage under the cheapest sharding that makes it fit, or with advice if none does."""
    tries = [
        (sharding, stage_memory(shape, stage, longest, micro, gpus=machine.gpus, sharding=sharding))
        for sharding in _allowed(stage, shape, machine)
    ]
    sharding, memory = next(((s, m) for s, m in tries if m.total <= machine.room), tries[-1])
    fits = memory.total <= machine.room
    return StageEstimate(
        model=model.name,
        stage=stage.name,
        trains=", ".join(stage.train) + (" (LoRA)" if stage.lora else ""),
        tokens=math.ceil(longest.tokens),
        sharding=sharding,
        memory=memory,
        fits=fits,
        hours=None,
        advice="" if fits else _advice(stage, shape, longest, machine, memory),
    )


def _allowed(stage: Stage, shape: Shape, machine: Machine) -> list[Sharding]:
    """Return ways to shard a stage: low-rank layers, Muon and a `vlm` need whole weights."""
    if machine.gpus == 1 or stage.lora or stage.optimizer == "muon" or not shape.packs:
        return ["none"]
    return list(SHARDINGS) if machine.sharding == "auto" else [machine.sharding]


def _advice(stage: Stage, shape: Shape, longest: OneSequence, machine: Machine, memory: Memory) -> str:
    """Say what would make it fit, trying changes in the order of their cost."""
    share = stage.batch_images // machine.gpus
    said = (
        f"takes {memory.total / GB:.0f} GB of {machine.room / GB:.0f} ({memory.fixed / GB:.0f} and "
        f"{memory.a_sequence / GB:.1f} for each of {memory.micro_batch} sequences per pass). "
    )
    ways: list[tuple[str, dict[str, Any]]] = [("", {})]
    if not stage.gradient_checkpointing:
        ways.append(("gradient_checkpointing: true", {"gradient_checkpointing": True}))
    if not stage.bf16:
        ways.append(("bf16: true", {"bf16": True}))
    if stage.lora is None and "llm" in stage.train:
        ways.append(("lora: {}", {"lora": {}}))
    changes: dict[str, Any] = {}
    for count in range(len(ways)):
        changes |= ways[count][1]
        # An explicit optimizer and rates stay; the changed stage is validated like any other.
        other = Stage.model_validate(stage.model_dump() | changes)
        for sharding in _allowed(other, shape, machine):
            tried = stage_memory(shape, other, longest, 1, gpus=machine.gpus, sharding=sharding)
            micro = fitting(tried, machine.room, share)
            if micro:
                named = [text for text, _ in ways[1 : count + 1]] + [f"micro_batch_images: {micro}"]
                spread = "" if sharding == "none" else ", spread over the GPUs by FSDP"
                return f"{said}It would fit with {', '.join(named)}{spread}."
    return f"{said}Not even one sequence fits. Take more GPUs, fewer encoders or a smaller language model."


def _hours(
    shape: Shape,
    stage: Stage,
    data: list[str],
    found: Findings,
    counts: dict[str, Counts | None],
    machine: Machine,
    kept: bool,
) -> float | None:
    known = [counts.get(name) for name in data]
    k = questions_a_sequence(shape, stage)
    sets = [c for c in known if c is not None]
    if len(sets) < len(known) and stage.max_steps is None:
        return None
    asked = sum(c.questions for c in sets) or k
    pictures = sum(c.pictures for c in sets)
    sequences = sum(c.pictures * math.ceil(c.questions / c.pictures / k) for c in sets if c.pictures) or 1
    steps = stage.max_steps or math.ceil(round(stage.epochs * math.ceil(sequences / stage.batch_images), 6))
    lengths = [found.lengths[name] for name in data]
    questions = asked / sequences
    mean = OneSequence(
        shape.picture_tokens,
        questions * sum(q.mean for q in lengths) / len(lengths),
        questions * sum(q.learnt for q in lengths) / len(lengths),
        packed=k > 1,
    )
    once = pictures if kept and shape.packs and "encoders" not in stage.train and pictures else None
    return stage_hours(
        shape,
        stage,
        mean,
        questions,
        Amount(steps, once),
        gpus=machine.gpus,
        gpu=machine.gpu,
        utilisation=machine.utilisation,
    )
