"""A safety checker for painted pictures: any transformers image classifier, and the class that it must not see.

SDXL comes with no checker. None is used unless one is named; `safety` in the ledger is then null.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from vsre.errors import VsreError

UNSAFE = "the safety checker turned the picture down"


class SafetySpec(BaseModel):
    """A classifier, by hub id or folder, and its class `label`. Pictures for which that class has a probability above
    `at_most` are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str | None = None
    label: str = "nsfw"
    at_most: float = Field(default=0.5, ge=0, le=1)
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.model}@{self.revision or 'main'}/{self.label}<={self.at_most:g}"


class SafetyChecker:
    """Loads its model when it first looks. Raises VsreError then if it cannot be loaded or has no such class."""

    def __init__(self, spec: SafetySpec) -> None:
        self.spec = spec
        self._loaded: tuple[Any, Any, int] | None = None

    def scores(self, pictures: Sequence[bytes]) -> list[float]:
        """The probability of the class for each encoded picture."""
        import torch

        if not pictures:
            return []
        model, processor, index = self._load()
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures]
        inputs = processor(images=images, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            odds = model(**inputs).logits.float().softmax(-1)
        return [float(p) for p in odds[:, index]]

    def release(self) -> None:
        """Drop the model if it is loaded; the next look loads it again."""
        self._loaded = None

    def _load(self) -> tuple[Any, Any, int]:
        if self._loaded is None:
            from transformers import AutoImageProcessor, AutoModelForImageClassification

            spec = self.spec
            try:
                model = AutoModelForImageClassification.from_pretrained(
                    spec.model, revision=spec.revision, use_safetensors=True
                ).eval()
                processor = AutoImageProcessor.from_pretrained(spec.model, revision=spec.revision, backend="pil")
            # A broken folder or an unreachable hub can fail anywhere in the library.
            except Exception as error:
                raise VsreError(f"{spec.model}: cannot be loaded as an image classifier ({error}).") from error
            index = model.config.label2id.get(spec.label)
            if index is None:
                classes = ", ".join(model.config.label2id)
                raise VsreError(f"{spec.model}: has no class {spec.label!r}; it has {classes}.")
            self._loaded = model.to(spec.device), processor, index
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes load the model themselves."""
        return {"spec": self.spec, "_loaded": None}
