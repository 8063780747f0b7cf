"""A recipe: one YAML file that names a whole experiment, from its data to its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vsre.errors import VsreError
from vsre.model import fusion_from
from vsre.recipes.consistency import cross_faults
from vsre.recipes.data_options import TripletOptions
from vsre.recipes.diagnosis import DiagnoseSpec, ObjectCounts, Style, WorldSplit
from vsre.recipes.near import nearest
from vsre.repaint.presets import load_config
from vsre.repaint.specs import Diffusion, Fallible, Scenes
from vsre.train import DataSource, Stage, parse_stages
from vsre.train.stages import Strict


class SceneSource(Strict):
    """The embedded world: how many units (pairs of scenes) each split gets."""

    kind: Literal["scenes"]
    train_units: int
    dev_units: int = 0
    test_units: int
    split: WorldSplit = "caption-disjoint"
    size: int = 192
    test_style: Style = Field(default="twemoji", description="who drew the things of the test pictures")
    objects: ObjectCounts | None = None


class VsrSource(Strict):
    """A VSR copy: annotation files of each side, image folders, COCO instance files."""

    kind: Literal["vsr"]
    train: list[Path]
    test: list[Path]
    images: list[Path]
    instances: list[Path] = []


class LayoutSource(Strict):
    """A VSR copy drawn from its boxes: the published annotations folder, COCO instance files or lines of boxes."""

    kind: Literal["layouts"]
    annotations: Path
    split: Literal["random", "zero-shot", "turn-s"] = "zero-shot"
    instances: list[Path]
    objects: Literal["named", "all"] = "named"
    size: int = 192


class Repaint(Strict):
    """Which painter settings are applied to which triplets, and which verifier checks the pictures."""

    painter: str = Field(default="scene", description="scene, fallible, a diffusion preset or a YAML file")
    overrides: dict[str, Any] = Field(default={}, description="values that differ from the preset's, as in such a file")
    verifier: str | None = Field(default=None, description="a verifier preset or YAML file; what it confirms is kept")
    settings: list[Literal["t2i", "i2i", "inpaint"]] = ["t2i", "i2i", "inpaint"]
    per_triplet: int = 1
    limit: int | None = Field(default=None, ge=1, description="how many triplets, spread evenly over the set")

    @model_validator(mode="after")
    def _can_be_made(self, info: ValidationInfo) -> Repaint:
        try:
            if info.context != STORED:
                self.painter_spec(None)
        except VsreError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def draws(self) -> bool:
        """Whether pictures are scenes drawn on the CPU, not painted by a model."""
        return self.painter in ("scene", "fallible")

    def painter_spec(self, scenes: Path | None) -> Scenes | Fallible | Diffusion:
        """Return the painter; `scenes` is the scenes.jsonl of the recipe's world, None if it has none."""
        if self.painter == "fallible":
            if self.overrides.keys() != {"faults"} or "inpaint" in self.settings:
                raise VsreError(
                    "the fallible painter draws t2i and i2i, and needs to know one thing, the share of its faults: "
                    "settings: [t2i, i2i], overrides: {faults: 0.3}"
                )
            return Fallible(scenes=scenes, faults=self.overrides["faults"])
        if not self.draws:
            return Diffusion(config=load_config(self.painter).changed(**self.overrides).only(self.settings))
        if self.overrides:
            raise VsreError(f"the scene painter has no {', '.join(self.overrides)}: leave `overrides` out")
        return Scenes(scenes=scenes)


class GeneralQuestions(Strict):
    """General questions (is there a cat? where is it?) about scenes of their own, as the shipped base was tuned on."""

    pictures: int = Field(ge=1)
    questions: int = Field(default=10, ge=1)
    kind: Literal["general", "grounded"] = "grounded"


class DataSpec(TripletOptions):
    """One question source: triplets (the train split, a part of it, more than it, or repainted from it) asked through a
    template pack, or general questions that preserve what a model knew.
    """

    repaint: Repaint | None = None
    pack: str | None = None
    per_triplet: int | None = Field(default=None, ge=1)
    general: GeneralQuestions | None = None

    @model_validator(mode="after")
    def _one_of(self) -> DataSpec:
        if (self.pack is None) == (self.general is None):
            raise ValueError("give either `pack`, a template pack to ask triplets through, or `general`")
        if self.general is not None and (self.repaint is not None or self.per_triplet is not None):
            raise ValueError("`general` questions have scenes of their own: no `repaint`, no `per_triplet`")
        if self.general is not None and (given := [*self.chosen(), *(["templates"] if self.templates else [])]):
            raise ValueError(f"`general` questions are not asked about triplets: no `{'`, no `'.join(given)}`")
        if self.templates and (self.per_triplet or 0) > self.templates:
            raise ValueError(f"per_triplet {self.per_triplet} is more than the {self.templates} `templates` to take")
        return self


class EncoderChoice(Strict):
    """An encoder: the paper's name for it, zoo:NAME, a folder or a hub id; on its own, or as a mapping with options."""

    id: str
    name: str | None = Field(default=None, description="what the model calls it; default: the last part of its id")
    image_size: int | None = Field(default=None, ge=1, description="side of its input in pixels; default: its own")
    tokens: int | None = Field(default=None, ge=1, description="the most visual tokens it may contribute")

    @model_validator(mode="before")
    @classmethod
    def _id_alone(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value


class Start(Strict):
    """Where a model starts: a checkpoint as it is, an earlier model of the recipe after its training, a language model
    with fresh adapters on frozen encoders, or any vision-language model of transformers.

    `checkpoint` is a VSRE or LLaVA model, whose questions are packed by image; a `vlm`, of whatever kind, is trained
    with one question per sequence through its own processor and chat template. With a `checkpoint` that is a VSRE
    model, `encoders` names those that it keeps: it is trained without the others and their adapters.
    """

    checkpoint: str | None = None
    model: str | None = None
    llm: str | None = None
    vlm: str | None = None
    encoders: list[EncoderChoice] = []
    fusion: str | dict[str, Any] = Field(
        default="sequence", description="how the encoders are joined: sequence, channel, interleave; or {kind, options}"
    )

    @field_validator("fusion")
    @classmethod
    def _fusion_is_one(cls, fusion: str | dict[str, Any]) -> str | dict[str, Any]:
        try:
            fusion_from(fusion)
        except VsreError as error:
            raise ValueError(str(error)) from error
        return fusion

    @model_validator(mode="after")
    def _one_of(self) -> Start:
        if sum(given is not None for given in (self.checkpoint, self.model, self.llm, self.vlm)) != 1:
            raise ValueError("give either `checkpoint`, or `model`, or `vlm`, or `llm` with `encoders`")
        if self.llm is not None and not self.encoders:
            raise ValueError("`llm` needs `encoders`, for example [zoo:clip, zoo:sam]")
        if self.encoders and self.llm is None and self.checkpoint is None:
            raise ValueError("`encoders` goes with `llm`, or with a VSRE `checkpoint`, to keep some of its encoders")
        if self.checkpoint is not None and any(choice != EncoderChoice(id=choice.id) for choice in self.encoders):
            raise ValueError("a VSRE model keeps its encoders as they are: name, image_size and tokens go with `llm`")
        if self.llm is None and self.fusion != "sequence":
            raise ValueError("`fusion` says how new adapters join encoders: it goes with `llm`")
        return self


class PaperRow(Strict):
    """The row of the paper's tables (report/published.yaml) that a model corresponds to, by that file's keys."""

    model: str
    stage_1: str | None = None
    stage_2: str | None = None


class ModelSpec(Strict):
    """One row of the result table. A stage is as in a stages file, but its `data` are names of the recipe's data."""

    name: str
    role: Literal["base", "rung", "expert", "shipped"] = "rung"
    note: str = ""
    paper: PaperRow | None = None
    against: list[str] = Field(default=[], description="models before it to compare it with; default: the last one")
    factors: dict[str, str | float] = Field(
        default={}, description="what it is an arm of, for an experiment's tables and plots"
    )
    start: Start
    stages: list[dict[str, Any]] = []

    @field_validator("stages")
    @classmethod
    def _stages_are_stages(cls, stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for part in ([s] for s in stages) if len(stages) > 1 else ():
            found += _stage_faults(part)
        if not found and stages:
            found = _stage_faults(stages)
        if found:
            raise ValueError("; ".join(found))
        return stages

    def parsed_stages(self) -> tuple[Stage, ...]:
        """Return the stages with all defaults filled in; their data's folders are not known yet."""
        names = [name for stage in self.stages for name in stage.get("data", [])]
        return self.stages_on(dict.fromkeys(names, _ANYWHERE)) if self.stages else ()

    def stages_on(self, sources: dict[str, DataSource]) -> tuple[Stage, ...]:
        """Return the stages with the folders that the data's names stand for."""
        return parse_stages([s | {"data": [sources[name] for name in s.get("data", [])]} for s in self.stages])


_ANYWHERE = DataSource(triplets=Path("triplets"), questions=Path("questions"))


def _stage_faults(stages: list[dict[str, Any]]) -> list[str]:
    for data in (stage.get("data", []) for stage in stages):
        if not (isinstance(data, list) and all(isinstance(name, str) for name in data)):
            return [f"data: {data!r}: give names of the recipe's data sets, as in [turn-s]"]
    try:
        parse_stages([s | {"data": [_ANYWHERE for _ in s.get("data", [])]} for s in stages])
    except VsreError as error:
        return [str(error)]
    return []


STORED, UNTIED = {"stored": True}, {"tied": False}
"""Validation contexts: for a recipe that was valid when stored and is only read (a painter's file may be gone), and for
parts validated separately (`cross_faults` checks how they fit together)."""


class Recipe(Strict):
    """A whole experiment. `sources` say where its numbers come from, `notes` what is unknown or done differently."""

    name: str
    title: str
    about: str = ""
    sources: list[str] = []
    notes: list[str] = []
    seed: int = 0
    source: Annotated[SceneSource | VsrSource | LayoutSource, Field(discriminator="kind")]
    protocol: str = "clean"
    data: dict[str, DataSpec]
    models: list[ModelSpec]
    feature_cache: bool = True
    diagnose: DiagnoseSpec = DiagnoseSpec()

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Recipe:
        if info.context not in (UNTIED, STORED) and (faults := [*cross_faults(self.model_dump())]):
            raise ValueError("; ".join(faults))
        return self

    def root(self, model: ModelSpec) -> ModelSpec:
        """Return the model whose start a model's weights come from: itself, unless it continues an earlier one."""
        by_name = {m.name: m for m in self.models}
        while model.start.model in by_name:
            model = by_name[model.start.model]
        return model

    def rows(self, wanted: Sequence[str]) -> Recipe:
        """Return the recipe with only these models, by name or number (from 1), those they start from, and their data.

        A number that is a model's name means that model. Raises VsreError for a row that does not exist.
        """
        by_name = {m.name: m for m in self.models}
        keep: set[str] = set()
        for row in wanted:
            name = row
            if row not in by_name and row.isdecimal() and 0 < int(row) <= len(self.models):
                name = self.models[int(row) - 1].name
            if name not in by_name:
                raise VsreError(f"{self.name}: has {len(self.models)} rows, none is {row!r}. {nearest(row, by_name)}")
            chain: str | None = name
            while chain is not None:
                keep.add(chain)
                chain = by_name[chain].start.model
        models = [
            m.model_copy(update={"against": [a for a in m.against if a in keep]}) for m in self.models if m.name in keep
        ]
        used = {source for m in models for stage in m.stages for source in stage.get("data", [])}
        data = {name: spec for name, spec in self.data.items() if name in used}
        return self.model_copy(update={"models": models, "data": data})
