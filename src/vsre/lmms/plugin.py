"""What lmms-eval finds under its entry-point group `lmms_eval.models`; imported at its every start, so kept light."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The `ModelManifest` behind `lmms_eval --model vsre`."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

    return ModelManifest(model_id="vsre", simple_class_path="vsre.lmms.model.Vsre")
