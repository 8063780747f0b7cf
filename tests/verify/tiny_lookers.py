"""Random models of toy size with the real classes, saved as checkpoint folders of well under 1 MB each.

What they see is noise. What it goes through is real: Auto classes, processors without torchvision, post-processing.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DFineConfig,
    DFineForObjectDetection,
    Dinov2Config,
    DPTImageProcessorPil,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    HGNetV2Config,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    RTDetrImageProcessorPil,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
    SwinConfig,
)

SIDE = 64
LABELS = {0: "cat", 1: "sofa", 2: "tvmonitor"}

_DETR = {
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 8, 8],
    "encoder_layers": 1,
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "d_model": 16,
    "num_queries": 10,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_denoising": 0,
    "id2label": LABELS,
    "label2id": {label: number for number, label in LABELS.items()},
}
_STAGES = ["stage2", "stage3", "stage4"]


def tiny_rt_detr(folder: Path) -> Path:
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", out_features=_STAGES
    )
    config = RTDetrV2Config(backbone_config=backbone, decoder_n_points=2, **_DETR)
    return _save(folder / "rt", RTDetrV2ForObjectDetection(config), _square())


def tiny_d_fine(folder: Path) -> Path:
    torch.manual_seed(0)
    backbone = HGNetV2Config(
        embedding_size=8,
        depths=[1] * 4,
        hidden_sizes=[8] * 4,
        stem_channels=[3, 8, 8],
        stage_in_channels=[8] * 4,
        stage_mid_channels=[8] * 4,
        stage_out_channels=[8] * 4,
        stage_num_blocks=[1] * 4,
        stage_downsample=[False, True, True, True],
        stage_light_block=[False] * 4,
        stage_kernel_size=[3] * 4,
        stage_numb_of_layers=[1] * 4,
        out_features=_STAGES,
    )
    config = DFineConfig(backbone_config=backbone, decoder_n_points=[2, 2, 2], **_DETR)
    return _save(folder / "dfine", DFineForObjectDetection(config), _square())


def tiny_owlv2(folder: Path) -> Path:
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], pad_token="!", model_max_length=16
    )
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    body = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"image_size": SIDE, "patch_size": 16}
    config = Owlv2Config(text_config=body | text, vision_config=body | vision, projection_dim=16)
    images = Owlv2ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _save(
        folder / "owl", Owlv2ForObjectDetection(config), Owlv2Processor(image_processor=images, tokenizer=tokenizer)
    )


def tiny_grounding_dino(folder: Path, *, mm: bool = False) -> Path:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "an", "cat", "dog", "sofa", "television", "?"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    text = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    backbone = SwinConfig(
        image_size=SIDE,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=_STAGES,
    )
    made, model = (
        (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection)
        if mm
        else (GroundingDinoConfig, GroundingDinoForObjectDetection)
    )
    config = made(
        backbone_config=backbone,
        text_config=text,
        num_queries=10,
        d_model=32,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        encoder_n_points=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_n_points=2,
        num_feature_levels=3,
        max_text_len=32,
    )
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": SIDE, "longest_edge": 96})
    return _save(
        folder / ("mm" if mm else "dino"),
        model(config),
        GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer),
    )


def tiny_depth(folder: Path, *, kind: str = "relative") -> Path:
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    images = DPTImageProcessorPil(size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14)
    return _save(folder / f"depth-{kind}", DepthAnythingForDepthEstimation(config), images)


def tiny_sam(folder: Path) -> Path:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "output_channels": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "mlp_dim": 16,
        "window_size": 4,
        "num_pos_feats": 4,
        "global_attn_indexes": [0],
    }
    prompts = {"hidden_size": 8, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 8,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 8,
    }
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    images = SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    return _save(folder / "sam", SamModel(config), SamProcessor(images))


def _square() -> RTDetrImageProcessorPil:
    return RTDetrImageProcessorPil(size={"height": SIDE, "width": SIDE})


def _save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class Scripted(torch.nn.Module):
    """A model that answers with these logits and boxes (centre and size), whatever it is shown."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, logits: torch.Tensor, boxes: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.boxes, self.calls = logits, boxes, []

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        n = len(inputs["pixel_values"])
        self.calls.append(n)
        return SimpleNamespace(
            logits=self.logits.expand(n, *self.logits.shape[-2:]),
            pred_boxes=self.boxes.expand(n, *self.boxes.shape[-2:]),
            input_ids=inputs.get("input_ids"),
        )
