"""The tiny detector of the embedded world's classes: RT-DETR v2, the family that is used on photographs too.

transformers' own classes and loss, and one addition: in training, every token of the encoder that lies in a thing is
taught the thing's class and box as well. A DETR learns from one token per thing and layer, too little for an hour of
training; the addition fades out, so that one box per thing remains.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    RTDetrImageProcessorPil,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    set_seed,
)

from vsre.model.checkpoints import load_weights
from vsre.sources.scenes import CLASSES
from vsre.zoo.cards import write_card
from vsre.zoo.detector_figures import detector_figures
from vsre.zoo.encoders import Collate
from vsre.zoo.fit import Batch, FitConfig, fit
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.views import View, training_view

LABELS = dict(enumerate(CLASSES))

_TWICE = {f"model.{head}.": f"model.model.decoder.{head}." for head in ("class_embed", "bbox_embed")}


def detector_config(settings: dict[str, Any]) -> RTDetrV2Config:
    """The config with zoo.yaml's shapes and trainable batch norms in the backbone: nothing here is pretrained."""
    shape, levels = settings["detector"], settings["levels"]
    backbone = RTDetrResNetConfig(layer_type="basic", out_indices=levels, **settings["backbone"])
    width = shape["d_model"]
    return RTDetrV2Config(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=[settings["backbone"]["hidden_sizes"][level - 1] for level in levels],
        feat_strides=[2 ** (level + 1) for level in levels],
        encode_proj_layers=[len(levels) - 1],
        encoder_hidden_dim=width,
        decoder_in_channels=[width] * len(levels),
        num_feature_levels=len(levels),
        decoder_n_levels=len(levels),
        id2label=LABELS,
        label2id={name: number for number, name in LABELS.items()},
        **shape,
    )


class DetectorObjective(nn.Module):
    """RT-DETR's loss on batches of views, plus the dense one, which has faded out once `progress` is `dense_until`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.model = RTDetrV2ForObjectDetection(detector_config(settings))
        parts = self.model.model
        for part in (parts.backbone, parts.encoder, *parts.encoder_input_proj, *parts.decoder_input_proj):
            _in_bfloat16(part)
        self.dense_until = float(settings["dense_until"])

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Without the second names of the heads, which the decoder holds too: safetensors keeps nothing twice."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in state.items() if not name.startswith(tuple(_TWICE.values()))}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        twice = {
            second + name.removeprefix(first): tensor
            for first, second in _TWICE.items()
            for name, tensor in state_dict.items()
            if name.startswith(first)
        }
        return super().load_state_dict({**state_dict, **twice}, *args, **kwargs)

    def forward(self, images: Tensor, boxes: Tensor, classes: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """images uint8 (B, 3, S, S); boxes (B, K, 4) centre and size in fractions, classes (B, K) with -1 for none."""
        pixels = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        there = classes >= 0
        labels = [{"class_labels": c[t], "boxes": b[t]} for b, c, t in zip(boxes, classes, there, strict=True)]
        out = self.model(pixel_values=pixels, labels=labels)
        loss = out.loss
        weight = 1 - float(progress) / self.dense_until
        if weight > 0:
            tokens = out.enc_outputs_coord_logits.sigmoid()
            strides = self.model.config.feat_strides
            loss = loss + weight * dense_loss(out.enc_outputs_class, tokens, boxes, classes, strides)
        return {"loss": loss}


def _in_bfloat16(part: nn.Module) -> None:
    """Let a part compute in bfloat16 (convolutions: a third faster on a CPU that has it) and return float32.

    Not the decoder: eight bits resolve a box's place to half a pixel only.
    """
    inner = part.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(next(part.parameters()).device.type, torch.bfloat16):
            return _float32(inner(*args, **kwargs))

    part.forward = forward


def _float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return type(value)(**{key: _float32(v) for key, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_float32(v) for v in value)
    return value


def _corners(boxes: Tensor) -> Tensor:
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half], -1)


def token_centres(tokens: int, strides: Sequence[int]) -> Tensor:
    """(tokens, 2) x, y in fractions, of the tokens of square feature maps, the finest first."""
    finest = round((tokens / sum((strides[0] / s) ** 2 for s in strides)) ** 0.5)
    found = []
    for stride in strides:
        side = finest * strides[0] // stride
        at = (torch.arange(side) + 0.5) / side
        found.append(torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(-1, 2))
    return torch.cat(found)


def dense_loss(logits: Tensor, tokens: Tensor, boxes: Tensor, classes: Tensor, strides: Sequence[int]) -> Tensor:
    """Varifocal, L1 and GIoU losses of all tokens that lie well inside a thing, with RT-DETR's weights.

    logits (B, T, classes), tokens (B, T, 4) their boxes, boxes (B, K, 4); of several things, a token is the smallest's.
    """
    centres = token_centres(tokens.shape[1], strides).to(tokens.device)
    finest = (centres[1, 0] - centres[0, 0]) / 2
    reach = (0.3 * boxes[..., 2:]).clamp_min(float(finest))  # half the inner region; no thing falls between tokens
    inside = ((centres[None, :, None] - boxes[:, None, :, :2]).abs() <= reach[:, None]).all(-1)  # (B, T, K)
    area = boxes[..., 2] * boxes[..., 3]
    owner = torch.where(inside & (classes >= 0)[:, None], area[:, None], torch.inf).min(-1)
    positive = owner.values.isfinite()
    rows = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(positive)[positive]
    wanted, named = boxes[rows, owner.indices[positive]], classes[rows, owner.indices[positive]]
    count = max(int(positive.sum()), 1)
    there = tokens[positive]
    giou, iou = _paired_iou(_corners(there), _corners(wanted))
    target = torch.zeros_like(logits)
    target[positive] = F.one_hot(named, logits.shape[-1]).to(logits) * iou.detach()[:, None]
    weight = torch.where(target > 0, target, 0.75 * logits.detach().sigmoid() ** 2)
    named_loss = F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum") / count
    return named_loss + 5 * (there - wanted).abs().sum() / count + 2 * (1 - giou).sum() / count


def _paired_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """GIoU and IoU of each row's two boxes (corners)."""
    across = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(-1)
    around = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp_min(0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - across
    iou = across / union.clamp_min(1e-9)
    return iou - 1 + union / around.clamp_min(1e-9), iou


def batch_of(views: Sequence[View], progress: float = 0.0) -> Batch:
    """The inputs of DetectorObjective for some views: see its forward."""
    most = max(1, max(len(v.names) for v in views))
    boxes = np.zeros((len(views), most, 4), np.float32)
    classes = np.full((len(views), most), -1, np.int64)
    number = {name: k for k, name in LABELS.items()}
    for row, view in enumerate(views):
        n = len(view.names)
        boxes[row, :n, :2] = (view.boxes[:, :2] + view.boxes[:, 2:]) / 2
        boxes[row, :n, 2:] = view.boxes[:, 2:] - view.boxes[:, :2]
        classes[row, :n] = [number[name] for name in view.names]
    images = np.stack([v.image for v in views]).transpose(0, 3, 1, 2)
    return {
        "images": torch.from_numpy(np.ascontiguousarray(images)),
        "boxes": torch.from_numpy(boxes),
        "classes": torch.from_numpy(classes),
        "progress": torch.tensor([progress]),
    }


def make_detector(settings: dict[str, Any], pool: Pool) -> tuple[DetectorObjective, Collate]:
    samples = settings["fit"]["steps"] * settings["fit"]["batch"]
    size = int(settings["size"])

    def collate(indices: Sequence[int]) -> Batch:
        return batch_of([training_view(pool, i, size) for i in indices], indices[0] / samples)

    return DetectorObjective(settings), collate


def train_detector(
    settings: dict[str, Any],
    work: Path,
    out: Path,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Make the detector in `out`/detector; see `train_zoo` for the arguments and for what is returned."""
    own = settings["detector"]
    if steps is not None:
        own = own | {"fit": own["fit"] | {"steps": steps}}
    config = FitConfig(**own["fit"])
    pools = {
        which: make_pool(work / "pools", n if steps is None else min(n, 256), seed, own["pool"]["size"])
        for which, (n, seed) in {
            "pool": (own["pool"]["scenes"], own["pool"]["seed"]),
            "held out": (settings["held_out_scenes"]["scenes"], settings["held_out_scenes"]["seed"]),
        }.items()
    }
    set_seed(config.seed)
    objective, collate = make_detector(own, pools["pool"])
    parameters = sum(p.numel() for p in objective.parameters())
    say(f"detector: {parameters:,} parameters, {config.steps} steps of {config.batch}")
    result = fit(objective, collate, config, work / "detector", seconds=seconds)
    if not result.finished:
        say(f"detector: stopped at step {result.steps} of {config.steps}; run again to continue")
        return False
    target = out / "detector"
    save_detector(objective.model, own["size"], target)
    figures, more = detector_figures(*load_detector(str(target)), pools["held out"], own["size"])
    made = {
        "data": f"{len(pools['pool'])} scenes (stream seed {own['pool']['seed']}), each view drawn anew (views.py)",
        "steps": result.steps,
        "batch": config.batch,
        "learning rate": config.lr,
        "seed": config.seed,
        "parameters": parameters,
        "last loss": round(result.loss, 4),
        "torch": torch.__version__,
    }
    write_card(target, "detector", settings=own, made=made, figures=figures, more=more)
    say(f"detector: written to {target}; {figures}")
    return True


def load_detector(path: str) -> tuple[Any, Any]:
    """Model (float32, in evaluation mode) and processor of a resolved checkpoint."""
    model = load_weights(AutoModelForObjectDetection, path, torch.float32)
    return model.eval(), AutoImageProcessor.from_pretrained(path)


def save_detector(model: RTDetrV2ForObjectDetection, size: int, target: Path) -> None:
    """Save the weights as float16, which loading turns back into float32, and a processor for pictures of any size."""
    shutil.rmtree(target, ignore_errors=True)
    copy.deepcopy(model).half().save_pretrained(target)
    config = target / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"float32"'))
    RTDetrImageProcessorPil(size={"height": size, "width": size}).save_pretrained(target)
