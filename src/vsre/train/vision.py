"""The features that a model's frozen encoders make of a picture, and how the model takes them in place of the picture.

Training rounds these features to bf16 whether they come from the encoders or from the cache, so the cache only decides
whether they are computed again.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration
from vsre.train.memory import out_of_memory

FEATURES = "encoder_features"
"""The argument of `forward` that takes frozen features."""
AT_ONCE = 16
"""Pictures encoded together; fewer once memory runs out, since SAM's layers of global attention hold 0.8 GB per picture
in float32."""


class FrozenVision(Protocol):
    """A model's frozen vision encoders. `revisions`: for each one a hash of everything that determines its features."""

    revisions: dict[str, str]

    def features(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """bf16 features of pixel values (B, 3, H, W) by encoder, on the encoders' device, before any adapter.

        If memory runs out, fewer pictures are encoded together from then on; torch's error if not even one fits.
        """

    def placed(self, device: torch.device) -> AbstractContextManager[None]:
        """Within it, the encoders are on this device; afterwards they are back where they were."""

    def taken(self) -> AbstractContextManager[None]:
        """Within it, `forward` takes features as `encoder_features` in place of `pixel_values`."""


def frozen_vision(model: Any, processor: Any, *, bf16: bool) -> FrozenVision | None:
    """A model's frozen encoders; None for an architecture whose features we cannot extract, which trains from pixels.

    `bf16`: the encoders compute in bf16, as the rest of the stage does.
    """
    found = next((kind for model_class, kind in _KINDS.items() if isinstance(model, model_class)), None)
    return found(model, processor, bf16) if found else None


class _Vision(ABC):
    def __init__(self, model: Any, processor: Any, bf16: bool) -> None:
        self.model, self.bf16, self.at_once = model, bf16, AT_ONCE
        seen = json.dumps(processor.image_processor.to_dict(), sort_keys=True, default=str)
        self.revisions = {
            name: _revision(module, f"{seen} {taken} {bf16}") for name, (module, taken) in self._encoders().items()
        }

    @abstractmethod
    def _encoders(self) -> dict[str, tuple[nn.Module, str]]:
        """Encoder modules by name, each with a description of what is taken from it."""

    @abstractmethod
    def _encode(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features of pixels on the encoders' device, in their dtype."""

    @abstractmethod
    def taken(self) -> AbstractContextManager[None]:
        """As in FrozenVision."""

    @contextmanager
    def placed(self, device: torch.device) -> Iterator[None]:
        modules = [module for module, _ in self._encoders().values()]
        before = [_device(module) for module in modules]
        try:
            for module in modules:
                module.to(device)
            yield
        finally:
            for module, place in zip(modules, before, strict=True):
                module.to(place)

    @torch.no_grad()
    def features(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        for module, _ in self._encoders().values():
            module.eval()  # dropout must not affect what is kept
        parts: list[dict[str, torch.Tensor]] = []
        done = 0
        while done < len(pixels):
            some = pixels[done : done + self.at_once]
            try:
                parts.append(self._few(some))
            except RuntimeError as error:
                if len(some) == 1 or not out_of_memory(error):
                    raise
                self.at_once = len(some) // 2
            else:
                done += len(some)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _few(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        device = _device(next(module for module, _ in self._encoders().values()))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            found = self._encode(pixels.to(device))
        return {name: value.bfloat16() for name, value in found.items()}


class _VsreVision(_Vision):
    def _encoders(self) -> dict[str, tuple[nn.Module, str]]:
        return {s.name: (self.model.encoders[s.name], json.dumps(s.to_dict())) for s in self.model.specs}

    def _encode(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.model.encode(pixels)

    def taken(self) -> AbstractContextManager[None]:
        return nullcontext()


class _LlavaVision(_Vision):
    """transformers' LLaVA: its features are the inputs of its projector."""

    def _encoders(self) -> dict[str, tuple[nn.Module, str]]:
        config = self.model.config
        taken = f"{config.vision_feature_layer} {config.vision_feature_select_strategy}"
        return {"vision_tower": (self.model.model.vision_tower, taken)}

    def _encode(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        body = self.model.model
        projector, body.multi_modal_projector = body.multi_modal_projector, nn.Identity()
        try:
            found = body.get_image_features(pixel_values=pixels.to(body.vision_tower.dtype)).pooler_output
        finally:
            body.multi_modal_projector = projector
        return {"vision_tower": torch.stack(list(found))}  # (B, N, channels)

    @contextmanager
    def taken(self) -> Iterator[None]:
        hook = self.model.register_forward_pre_hook(self._embed, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _embed(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        features = kwargs.pop(FEATURES, None)
        if features is None:
            return args, kwargs
        projector = model.model.multi_modal_projector
        ids = kwargs.pop("input_ids")  # (B, L)
        embeddings = model.get_input_embeddings()(ids)  # (B, L, hidden)
        value = features["vision_tower"].to(next(projector.parameters()).dtype)
        tokens = projector(value)  # (B, N, hidden)
        places = (ids == model.config.image_token_id)[..., None].expand_as(embeddings)
        if int(places.sum()) != tokens.numel():
            raise VsreError(
                f"The text has {int((ids == model.config.image_token_id).sum())} image tokens, but the pictures give "
                f"{tokens.shape[0] * tokens.shape[1]}. Use the processor that was saved with this model."
            )
        kwargs["inputs_embeds"] = embeddings.masked_scatter(places, tokens.to(embeddings.dtype))
        return args, kwargs


_KINDS: dict[type, type[_Vision]] = {
    VsreForConditionalGeneration: _VsreVision,
    LlavaForConditionalGeneration: _LlavaVision,
}


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


_NAMES = ("transformers_version", "architectures", "dtype", "torch_dtype", "name_or_path")
"""Fields of a configuration that do not affect the features; the dtype is taken from the weights themselves."""


def _revision(encoder: nn.Module, settings: str) -> str:
    """A hash, 16 hex digits, of all values of the encoder's weights, its configuration and what is taken from it."""
    config: Any = encoder.config
    decides = {k: v for k, v in config.to_dict().items() if not k.startswith("_") and k not in _NAMES}
    digest = hashlib.blake2b(json.dumps([settings, decides], sort_keys=True, default=str).encode(), digest_size=8)
    for name, weight in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} ".encode())
        flat = weight.detach().contiguous().reshape(-1).cpu()
        if flat.numel():
            digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()
