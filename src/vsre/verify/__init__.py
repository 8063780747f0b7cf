"""Verification of painted or real pictures: does a picture show what its caption says? Detectors look, rules judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsre.repaint.verify import Verifier
    from vsre.verify.config import VerifierConfig

__all__ = ["SCENE_TRUTH", "build_verifier"]

SCENE_TRUTH = "scene-truth"


def build_verifier(name_or_config: str | VerifierConfig, **overrides: Any) -> Verifier:
    """Build a verifier from the name of a preset (`vsre verify presets`), a YAML file or a configuration.

    `overrides` replace fields of the configuration (`device`, `dtype`, `batch_size`, `offline` ...); None leaves a
    field unchanged. "scene-truth" judges drawn pictures by their scenes instead and ignores all overrides. Models are
    loaded when the first picture is looked at. Raises VsreError for an unknown name, invalid values and missing
    folders.
    """
    from vsre.repaint.verify import SceneTruth
    from vsre.verify.config import load_config
    from vsre.verify.verifier import PictureVerifier

    if name_or_config == SCENE_TRUTH:
        return SceneTruth()
    config = load_config(name_or_config) if isinstance(name_or_config, str) else name_or_config
    return PictureVerifier(config.changed(**overrides))
