"""A recipe: one YAML file that names a whole experiment, from its data to its report."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from vsre.errors import VsreError
from vsre.sources.protocols import PROTOCOLS
from vsre.train import DataSource, Stage, parse_stages
from vsre.train.stages import Strict


class SceneSource(Strict):
    """The embedded world: how many units (pairs of scenes) each split gets."""

    kind: Literal["scenes"]
    train_units: int
    dev_units: int = 0
    test_units: int
    split: Literal["caption-disjoint", "concept-disjoint"] = "caption-disjoint"
    size: int = 192
    test_style: Literal["twemoji", "openmoji"] = Field(
        default="twemoji", description="who drew the things of the test pictures"
    )


class VsrSource(Strict):
    """A VSR copy: annotation files of each side, image folders, COCO instance files."""

    kind: Literal["vsr"]
    train: list[Path]
    test: list[Path]
    images: list[Path]
    instances: list[Path] = []


class LayoutSource(Strict):
    """A VSR copy drawn from its boxes: the published folder of annotations, COCO instance files or lines of boxes."""

    kind: Literal["layouts"]
    annotations: Path
    split: Literal["random", "zero-shot", "turn-s"] = "zero-shot"
    instances: list[Path]
    objects: Literal["named", "all"] = "named"
    size: int = 192


class Repaint(Strict):
    """Which painter settings are applied to which triplets."""

    painter: Literal["scene"] = "scene"
    settings: list[Literal["t2i", "i2i", "inpaint"]] = ["t2i", "i2i", "inpaint"]
    per_triplet: int = 1
    limit: int | None = Field(default=None, ge=1, description="so many triplets, spread evenly over the set")


class GeneralQuestions(Strict):
    """General questions (is there a cat? where is it?) about scenes of their own, as the shipped base was tuned on."""

    pictures: int = Field(ge=1)
    questions: int = Field(default=10, ge=1)
    kind: Literal["general", "grounded"] = "grounded"


class DataSpec(Strict):
    """One question source: triplets (the train split, or repainted from it) asked through a template pack, or general
    questions that keep what a model knew.
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
        return self


class Start(Strict):
    """Where a model begins: a checkpoint as it is, an earlier model of the recipe as it ended, or a language model with
    fresh adapters on frozen encoders.
    """

    checkpoint: str | None = None
    model: str | None = None
    llm: str | None = None
    encoders: list[str] = []

    @model_validator(mode="after")
    def _one_of(self) -> Start:
        if sum(given is not None for given in (self.checkpoint, self.model, self.llm)) != 1:
            raise ValueError("give either `checkpoint`, or `model`, or `llm` with `encoders`")
        if self.llm is not None and not self.encoders:
            raise ValueError("`llm` needs `encoders`, for example [zoo:clip, zoo:sam]")
        return self


class ModelSpec(Strict):
    """One row of the result table. A stage is as in a stages file, but its `data` are names of the recipe's data."""

    name: str
    role: Literal["base", "rung", "expert", "shipped"] = "rung"
    note: str = ""
    against: list[str] = Field(default=[], description="models before it to compare it with; default: the last one")
    start: Start
    stages: list[dict[str, Any]] = []

    @field_validator("stages")
    @classmethod
    def _stages_are_stages(cls, stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            if stages:
                parse_stages([_with_sources(s, dict.fromkeys(s.get("data", []), _ANYWHERE)) for s in stages])
        except VsreError as error:
            raise ValueError(str(error)) from error
        return stages

    def stages_on(self, sources: dict[str, DataSource]) -> tuple[Stage, ...]:
        """The stages with the folders that the data's names stand for."""
        return parse_stages([_with_sources(s, sources) for s in self.stages])


_ANYWHERE = DataSource(triplets=Path("triplets"), questions=Path("questions"))


def _with_sources(stage: dict[str, Any], sources: dict[str, DataSource]) -> dict[str, Any]:
    return stage | {"data": [sources[name] for name in stage.get("data", [])]}


class DiagnoseSpec(Strict):
    packs: list[str] = ["test-s", "pool", "held-out"]
    limit: int | None = None
    general: int | None = Field(
        default=None, ge=1, description="scenes on which non-spatial yes/no questions are asked too"
    )
    blank: bool = Field(default=False, description="ask test-s again with a grey frame in place of each picture")


class Recipe(Strict):
    name: str
    title: str
    about: str = ""
    seed: int = 0
    source: Annotated[SceneSource | VsrSource | LayoutSource, Field(discriminator="kind")]
    protocol: str = "clean"
    data: dict[str, DataSpec]
    models: list[ModelSpec]
    feature_cache: bool = True
    diagnose: DiagnoseSpec = DiagnoseSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol {self.protocol!r} is none of {', '.join(PROTOCOLS)}")
        names = [m.name for m in self.models]
        if len(set(names)) != len(names):
            raise ValueError("two models have the same name")
        for at, model in enumerate(self.models):
            if model.start.model is not None and model.start.model not in names[:at]:
                raise ValueError(f"{model.name!r} starts from {model.start.model!r}, which is no model before it")
            if unknown := set(model.against) - set(names[:at]):
                raise ValueError(f"{model.name!r} is to be compared with {sorted(unknown)}, no models before it")
            for stage in model.stages:
                for source in stage.get("data", []):
                    if source not in self.data:
                        raise ValueError(
                            f"stage {stage.get('name')!r} of {model.name!r} names the data {source!r}; "
                            f"the recipe has {', '.join(self.data) or 'none'}"
                        )
        return self


def recipe_names() -> list[str]:
    folder = resources.files("vsre.recipes").joinpath("data")
    return sorted(Path(str(f)).stem for f in folder.iterdir() if str(f).endswith(".yaml"))


def recipe_text(name_or_path: str) -> tuple[str, str]:
    """The text of a shipped recipe (by name) or of a file (by path), and where it is from."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise VsreError(f"{path}: no such recipe file.")
        return path.read_text(), str(path)
    if name_or_path not in recipe_names():
        raise VsreError(
            f"There is no recipe {name_or_path!r}. Shipped: {', '.join(recipe_names())}; or give a YAML file's path."
        )
    return resources.files("vsre.recipes").joinpath("data", f"{name_or_path}.yaml").read_text(), name_or_path


def load_recipe(name_or_path: str) -> Recipe:
    """Read and check a recipe; a mistake is named with its place in the file."""
    text, where = recipe_text(name_or_path)
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VsreError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise VsreError(f"{where}: a recipe is a mapping with name, source, data, models; found {type(raw).__name__}.")
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'recipe'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise VsreError(f"{where}: {problems}.") from error
