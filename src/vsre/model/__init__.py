"""The VSRE model: frozen encoders in one square frame, joined by a fusion, and a causal language model.

Importing this package registers the model with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from vsre.model.build import (
    Plan,
    PlanRow,
    build_vsre,
    count_parameters,
    module_groups,
    plan,
    plan_checkpoints,
)
from vsre.model.checkpoints import resolve_checkpoint, zoo_names
from vsre.model.config import VsreConfig
from vsre.model.frame import VsreImageProcessor, box_in_frame, encoder_pixels, to_frame
from vsre.model.fusion import (
    ChannelFusion,
    Fusion,
    InterleaveFusion,
    Place,
    SequenceFusion,
    fusion_from,
)
from vsre.model.modeling import VsreForConditionalGeneration, VsreOutput
from vsre.model.processing import VsreProcessor, chat_template, prepare_tokenizer
from vsre.model.specs import ENCODERS, EncoderSpec, spec_from_checkpoint, spec_from_config
from vsre.model.subset import config_with, keep_encoders

AutoConfig.register("vsre", VsreConfig, exist_ok=True)
AutoModelForImageTextToText.register(VsreConfig, VsreForConditionalGeneration, exist_ok=True)
# One class serves both names: frames are cut with PIL whether or not torchvision is installed.
AutoImageProcessor.register(
    VsreConfig,
    image_processor_classes={"pil": VsreImageProcessor, "torchvision": VsreImageProcessor},
    exist_ok=True,
)
AutoProcessor.register(VsreConfig, VsreProcessor, exist_ok=True)

__all__ = [
    "ChannelFusion",
    "ENCODERS",
    "EncoderSpec",
    "Fusion",
    "InterleaveFusion",
    "Place",
    "Plan",
    "PlanRow",
    "SequenceFusion",
    "VsreConfig",
    "VsreForConditionalGeneration",
    "VsreImageProcessor",
    "VsreOutput",
    "VsreProcessor",
    "box_in_frame",
    "build_vsre",
    "chat_template",
    "config_with",
    "count_parameters",
    "encoder_pixels",
    "fusion_from",
    "keep_encoders",
    "module_groups",
    "plan",
    "plan_checkpoints",
    "prepare_tokenizer",
    "resolve_checkpoint",
    "spec_from_checkpoint",
    "spec_from_config",
    "to_frame",
    "zoo_names",
]
