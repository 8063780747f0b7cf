"""Painters and verifiers as data, so that a plan can say which ones it uses and any machine can make them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from vsre.repaint.diffusion import DiffusionPainter
from vsre.repaint.fallible_painter import FalliblePainter
from vsre.repaint.painter import Vocabulary
from vsre.repaint.presets import DiffusionConfig
from vsre.repaint.scene_painter import ScenePainter
from vsre.repaint.verify import Verifier


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Drawn(_Spec):
    """`scenes` is the scenes.jsonl of the world that the triplets come from, None for photos.

    `size` is the side, in pixels, of newly drawn pictures.
    """

    scenes: Path | None = None
    size: int = 192

    def anywhere(self) -> Self:
        """The same spec with absolute paths, valid in any folder."""
        return self if self.scenes is None else self.model_copy(update={"scenes": self.scenes.resolve()})


class Scenes(_Drawn):
    """The scene painter."""

    kind: Literal["scene"] = "scene"

    def __call__(self, vocabulary: Vocabulary) -> ScenePainter:
        return ScenePainter(vocabulary, scenes=self.scenes, size=self.size)


class Fallible(_Drawn):
    """The scene painter with a share of faults, 0 to 1."""

    kind: Literal["fallible"] = "fallible"
    faults: float = Field(ge=0, le=1)

    def __call__(self, vocabulary: Vocabulary) -> FalliblePainter:
        return FalliblePainter(vocabulary, faults=self.faults, scenes=self.scenes, size=self.size)


class Diffusion(_Spec):
    """A diffusion painter."""

    kind: Literal["diffusion"] = "diffusion"
    config: DiffusionConfig

    def __call__(self, vocabulary: Vocabulary) -> DiffusionPainter:
        return DiffusionPainter(vocabulary, self.config)

    def anywhere(self) -> Diffusion:
        """The same spec with folders of weights as absolute paths, valid in any folder."""
        return Diffusion(config=DiffusionConfig.model_validate(_whole_paths(self.config.model_dump(mode="json"))))


def _whole_paths(raw: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every `model` that is a folder here as an absolute path."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if key == "model" and isinstance(value, str) and Path(value).is_dir():
            value = str(Path(value).resolve())
        elif isinstance(value, dict):
            value = _whole_paths(value)
        elif key == "loras":
            value = [_whole_paths(lora) for lora in value]
        found[key] = value
    return found


PainterSpec = Annotated[Scenes | Fallible | Diffusion, Field(discriminator="kind")]


class VerifierSpec(_Spec):
    """A verifier as `vsre.verify.build_verifier` takes it: a name or a YAML file, and values that override it."""

    verifier: str
    options: dict[str, Any] = {}

    def __call__(self) -> Verifier:
        from vsre.verify import build_verifier

        return build_verifier(self.verifier, **self.options)

    def anywhere(self) -> VerifierSpec:
        """The same spec with absolute paths, valid in any folder."""
        path = Path(self.verifier)
        return self.model_copy(update={"verifier": str(path.resolve())}) if path.is_file() else self
