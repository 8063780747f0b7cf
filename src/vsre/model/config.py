"""VsreConfig: the language model's config, each encoder's spec and vision config, and how encoders are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from vsre.errors import VsreError
from vsre.model.fusion import SEQUENCE, Fusion, Place, fusion_from
from vsre.model.specs import EncoderSpec


class VsreConfig(PreTrainedConfig):
    """Config of VsreForConditionalGeneration.

    `encoders` is a list of {"spec": the fields of EncoderSpec, "config": a transformers vision config as a
    dictionary}, in the order in which they are joined. `fusion` says how: {"kind": ..., its options}, or None for
    sequence, one encoder's visual tokens after another's. `image_token_id` is the placeholder that visual tokens
    replace.
    """

    model_type = "vsre"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    encoders: list[dict[str, Any]] | None = None
    fusion: dict[str, Any] | None = None
    image_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        self.encoders = self.encoders or []
        super().__post_init__(**kwargs)
        check_names(self.specs)
        self.fused_by.check(self.specs)

    def to_dict(self) -> dict[str, Any]:
        """As in transformers; for sequence there is no fusion field, as in checkpoints older than the other fusions."""
        fields = super().to_dict()
        if fields.get("fusion") is None:
            fields.pop("fusion", None)
        return fields

    @classmethod
    def of(
        cls,
        text_config: PreTrainedConfig,
        encoders: Sequence[tuple[EncoderSpec, PreTrainedConfig]],
        *,
        fusion: Fusion = SEQUENCE,
        **kwargs: Any,
    ) -> VsreConfig:
        """The config of a language model, pairs of encoder spec and vision config, and how they are joined.

        Raises VsreError if they cannot be joined, and for a `text_config` that is no language model on its own.
        """
        check_language_model(text_config)
        entries = [{"spec": spec.to_dict(), "config": vision.to_diff_dict()} for spec, vision in encoders]
        joined = None if fusion == SEQUENCE else fusion.to_dict()
        return cls(text_config=text_config, encoders=entries, fusion=joined, **kwargs)

    @property
    def specs(self) -> tuple[EncoderSpec, ...]:
        """The encoder specs, in the order in which they are joined."""
        return tuple(EncoderSpec.from_dict(entry["spec"]) for entry in self.encoders or [])

    @property
    def fused_by(self) -> Fusion:
        """How the encoders are joined."""
        return fusion_from(self.fusion)

    @property
    def places(self) -> list[Place]:
        """For each visual token, in order, the encoders whose features it holds and the cell it stands for."""
        return self.fused_by.places(self.specs)

    @property
    def vision_configs(self) -> tuple[PreTrainedConfig, ...]:
        """A new transformers config for each encoder, in the same order."""
        # The dtype a checkpoint was saved in must not override the one the whole model is loaded in.
        return tuple(
            AutoConfig.for_model(**{k: v for k, v in entry["config"].items() if k not in ("dtype", "torch_dtype")})
            for entry in self.encoders or []
        )

    @property
    def frame_size(self) -> int:
        """S, the side of the square frame in pixels: the largest encoder's input."""
        return max(spec.image_size for spec in self.specs)

    @property
    def image_tokens(self) -> int:
        """Visual tokens of one picture."""
        return self.fused_by.tokens(self.specs)


def check_language_model(config: PreTrainedConfig, name: str = "") -> None:
    """Raise VsreError for a (decoder's) config for which transformers has no causal language model, such as those of
    the Qwen-VL models, whose positions are tied to their own pictures."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise VsreError(
            f"{name or config.name_or_path or 'llm'}: a language model of the kind "
            f"{config.model_type!r} does not stand alone, so VSRE cannot be built on it. Take a text-only model as "
            "`llm`, such as Qwen/Qwen2.5-7B-Instruct instead of Qwen/Qwen2.5-VL-7B-Instruct, or train this model "
            "as it is (`start: {vlm: ...}` in a recipe)."
        )


def check_names(specs: Sequence[EncoderSpec]) -> None:
    """Raise VsreError if two encoders of a model have the same name, which has to tell their weights apart."""
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise VsreError(
            f"Encoders {', '.join(names)}: two have the same name. Give each its own: --encoders NAME=ID,NAME=ID, or "
            "{id: ID, name: NAME} in a recipe."
        )
