"""VsreForConditionalGeneration: frozen encoders, their adapters, and any causal language model.

frame (B, 3, S, S) -> each encoder's pixels -> frozen features -> adapters, joined by the fusion -> (B, N, hidden)
                   -> written over the embeddings of the `<image>` tokens -> language model
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from vsre.errors import VsreError
from vsre.model.config import VsreConfig
from vsre.model.encoders import frozen_features


@dataclass
class VsreOutput(CausalLMOutputWithPast):
    """A causal language model's output, and the visual tokens it read: (pictures, N, hidden)."""

    image_hidden_states: torch.Tensor | None = None


class VsreForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The merged vision encoder in front of a causal language model (arXiv 2412.18224, section on the model).

    The encoders are frozen: they take no gradient and stay in evaluation mode whatever `train()` says. SAM
    has no flash attention: `attn_implementation={"": "sdpa", "text_config": "flash_attention_2"}` gives it to
    the language model alone.
    """

    config_class = VsreConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    # post_init adds those of the encoders and the language model
    _no_split_modules = ["Projector", "SamAdapter"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VsreConfig) -> None:
        super().__init__(config)
        width = config.get_text_config().hidden_size
        self.specs, self.fusion = config.specs, config.fused_by
        self._knocked_out: dict[str, torch.Tensor | None] = {}
        dtype = torch.get_default_dtype()
        attention = config._attn_implementation
        self.encoders = nn.ModuleDict(
            {
                # Convolutional encoders have no attention to choose.
                spec.name: AutoModel.from_config(
                    vision,
                    dtype=dtype,
                    attn_implementation=attention if MODEL_MAPPING[type(vision)]._supports_sdpa else "eager",
                )
                for spec, vision in zip(self.specs, config.vision_configs, strict=True)
            }
        )
        self.adapters = nn.ModuleDict(self.fusion.adapters(self.specs, width))
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.encoders.requires_grad_(False)
        self.post_init()
        self.encoders.eval()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.encoders.requires_grad_(False)  # loading replaces the parameters with unfrozen ones
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        # Only adapter layers get here: sub-models initialise themselves. PyTorch's own rule scales with the
        # fan-in, so visual tokens start at a similar size whatever the widths; a fixed 0.02 would shrink them in
        # narrow models.
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()

    def train(self, mode: bool = True) -> VsreForConditionalGeneration:
        super().train(mode)
        self.encoders.eval()
        return self

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    @torch.no_grad()
    def encode(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """The frozen features of frames (B, 3, S, S), uint8 or float in [0, 1], by encoder name.

        (B, tokens, channels), or (B, channels, g, g) for SAM. They do not change in training, so they can be
        cached.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[-1] != pixel_values.shape[-2]:
            raise VsreError(
                f"pixel_values have the shape {tuple(pixel_values.shape)}, but square frames "
                "(pictures, 3, S, S) are needed. Make them with VsreImageProcessor."
            )
        return {spec.name: frozen_features(self.encoders[spec.name], pixel_values, spec) for spec in self.specs}

    def project(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The visual tokens (B, N, hidden) of features from `encode`, joined by the model's fusion."""
        seen = dict(features)
        for name, instead in self._knocked_out.items():
            own = seen[name]
            seen[name] = torch.zeros_like(own) if instead is None else instead.to(own).expand_as(own)
        return self.fusion.join(self.specs, self.adapters, seen)

    def vision_settings(self) -> dict[str, Any]:
        """What determines the visual tokens besides the weights, as JSON: encoder specs, fusion, and which encoders are
        knocked out: by zeros, or by features with this sum."""
        specs = [{k: v for k, v in spec.to_dict().items() if k != "checkpoint"} for spec in self.specs]
        silent = {
            name: "zeros" if instead is None else instead.detach().double().sum().item()
            for name, instead in self._knocked_out.items()
        }
        return {"encoders": specs, "fusion": self.fusion.to_dict(), "knocked_out": silent}

    @contextmanager
    def knocked_out(self, encoders: Iterable[str] | Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Within it, the visual tokens carry nothing of what these encoders see; for ablations.

        Their features are replaced by zeros or, given {name: features}, by those: shaped like one picture's, for
        example their mean over many pictures, `model.encode(frames)[name].mean(0)`. This works under every fusion, for
        all inputs except ready-made `image_features`. Raises VsreError for a name that no encoder has.
        """
        wanted = dict(encoders) if isinstance(encoders, Mapping) else dict.fromkeys(encoders)
        if unknown := wanted.keys() - self.encoders.keys():
            raise VsreError(
                f"Encoders {', '.join(sorted(unknown))}: this model has none of that name. It has "
                f"{', '.join(self.encoders)}."
            )
        before, self._knocked_out = self._knocked_out, self._knocked_out | wanted
        try:
            yield
        finally:
            self._knocked_out = before

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The visual tokens (B, N, hidden) of frames (B, 3, S, S), uint8 or float in [0, 1]."""
        return self.project(self.encode(pixel_values))

    def merge(self, input_ids: torch.Tensor, image_features: torch.Tensor) -> torch.Tensor:
        """Token embeddings (B, L, hidden) with the visual tokens, in order, at the `<image>` tokens.

        Raises VsreError unless there are as many `<image>` tokens as visual tokens.
        """
        embeddings = self.get_input_embeddings()(input_ids)  # (B, L, hidden)
        image_features = image_features.to(embeddings.device, embeddings.dtype)
        places = (input_ids == self.config.image_token_id).to(embeddings.device)  # (B, L)
        wanted, given = int(places.sum()), image_features.shape[0] * image_features.shape[1]
        if wanted != given:
            raise VsreError(
                f"The text has {wanted} <image> tokens, but {image_features.shape[0]} pictures give {given} "
                f"visual tokens ({image_features.shape[1]} each). Make the inputs with the VsreProcessor "
                "saved with this model, and do not truncate them."
            )
        return embeddings.masked_scatter(places.unsqueeze(-1), image_features)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        encoder_features: dict[str, torch.Tensor] | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> VsreOutput:
        """One pass of the language model over text and pictures.

        `pixel_values` (pictures, 3, S, S) or, instead, `image_features` (pictures, N, hidden) from
        `get_image_features`, or `encoder_features` from `encode`, fill the `<image>` tokens of `input_ids`
        (B, L) in order; a row may hold any number of pictures. `attention_mask` is (B, L), or (B, 1, L, L)
        boolean with `position_ids` (B, L) for packed sequences. `labels` (B, L), -100 where nothing is learned,
        give the language model's own loss; `num_items_in_batch` and `shift_labels` are passed on to it. Raises
        VsreError when tokens and pictures do not match.
        """
        if sum(given is not None for given in (pixel_values, image_features, encoder_features)) > 1:
            raise VsreError("Give only one of pixel_values, image_features and encoder_features: they say the same.")
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values)
        elif encoder_features is not None:
            image_features = self.project(encoder_features)
        if image_features is not None:
            if input_ids is None:
                raise VsreError("Pictures need input_ids, whose <image> tokens say where they go.")
            inputs_embeds, input_ids = self.merge(input_ids, image_features), None
        outputs = self.language_model(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=self._llm_mask(attention_mask),
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return VsreOutput(**outputs, image_hidden_states=image_features)

    def _llm_mask(self, mask: Any) -> Any:
        # Eager attention adds its mask to the scores, so a boolean one would be read as 0 and 1.
        eager = self.language_model.config._attn_implementation == "eager"
        if not eager or not isinstance(mask, torch.Tensor) or mask.ndim != 4 or mask.dtype != torch.bool:
            return mask
        scores = torch.zeros(mask.shape, dtype=self.language_model.dtype, device=mask.device)
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)

    def prepare_inputs_for_generation(
        self, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        inputs = super().prepare_inputs_for_generation(*args, is_first_iteration=is_first_iteration, **kwargs)
        # transformers drops pixel_values after the first step, but not these ready-made features.
        if not is_first_iteration and inputs.get("use_cache", True):
            inputs.pop("image_features", None)
            inputs.pop("encoder_features", None)
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, input_ids: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        # transformers repeats along the first dimension, which would mix up the pictures of rows that hold
        # several.
        images = {name: kwargs.pop(name, None) for name in ("pixel_values", "image_features", "encoder_features")}
        rows = input_ids
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size, input_ids=input_ids, **kwargs)
        for name, value in images.items():
            if value is None or expand_size == 1 or rows is None:
                kwargs[name] = value
                continue
            counts = ((rows == self.config.image_token_id).sum(1) // self.config.image_tokens).tolist()  # (B,)
            if isinstance(value, dict):
                kwargs[name] = {encoder: _repeated(given, counts, expand_size) for encoder, given in value.items()}
            else:
                kwargs[name] = _repeated(value, counts, expand_size)
        return input_ids, kwargs


def _repeated(pictures: torch.Tensor, counts: list[int], times: int) -> torch.Tensor:
    """Each row's pictures `times` times, row after row: of (pictures, ...), of which row i holds `counts[i]`."""
    return torch.cat([row for row in pictures.split(counts) for _ in range(times)])
