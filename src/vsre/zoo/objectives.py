"""The four encoders' pretraining objectives, each of the kind its big sibling was trained with.

Every class is a module whose forward takes a batch and returns {"loss": scalar}; `.encoder()` is what ships.
Images come as uint8 (B, 3, S, S).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    SamConfig,
    SamModel,
    SamVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (B, 3, S, S) -> float32 with the encoder's own mean and standard deviation."""
    m = torch.tensor(mean, device=images.device).view(1, 3, 1, 1)
    s = torch.tensor(std, device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - m) / s


def _vision_part(kind: type[PreTrainedModel], full: PreTrainedModel) -> PreTrainedModel:
    """A stand-alone vision model of class `kind` with the weights of `full.vision_model`."""
    part = kind(full.config.vision_config)
    wanted = part.state_dict()
    have = full.state_dict()
    prefix = next(p for p in ("", "vision_model.") if all(p + k in have for k in wanted))
    part.load_state_dict({k: have[prefix + k] for k in wanted})
    return part


POSITION_STD = 0.5
"""Standard deviation of the initial position embeddings of CLIP and SigLIP. transformers, which expects to load them,
uses 0.02, which vanishes beside the patches: after 400 steps CLIP's features explained 0.15 of the variance of objects'
places, with this value 0.65. DINOv2 with this value, trained by Muon (600 steps), found fewer classes by nearest
neighbour, .34 instead of .40, so it was left as it was.
"""


def _draw_positions(vision: nn.Module) -> None:
    for name, weight in vision.named_parameters():
        if "position_embedding" in name:
            nn.init.normal_(weight, std=POSITION_STD)


class ClipObjective(nn.Module):
    """Contrastive softmax over the captions of the batch (Radford et al., arXiv 2103.00020)."""

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    text_inputs = ("input_ids", "attention_mask")

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.model = CLIPModel(config)
        _draw_positions(self.model.vision_model)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        out = self.model(
            pixel_values=normalise(images, self.mean, self.std),
            input_ids=input_ids,
            attention_mask=attention_mask,
            return_loss=True,
        )
        return {"loss": out.loss}

    def encoder(self) -> PreTrainedModel:
        return _vision_part(CLIPVisionModel, self.model)


class SiglipObjective(nn.Module):
    """Every (image, caption) pair of the batch judged on its own by a sigmoid (Zhai et al., arXiv 2303.15343)."""

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    text_inputs = ("input_ids",)  # it pools the last position of text padded to a fixed length, without a mask

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.model = SiglipModel(config)
        _draw_positions(self.model.vision_model)
        # The paper's start: temperature 10, bias -10, so that the many negatives do not drown the first steps.
        nn.init.constant_(self.model.logit_scale, math.log(10.0))
        nn.init.constant_(self.model.logit_bias, -10.0)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        out = self.model(pixel_values=normalise(images, self.mean, self.std), input_ids=input_ids, return_loss=True)
        return {"loss": out.loss}

    def encoder(self) -> PreTrainedModel:
        return _vision_part(SiglipVisionModel, self.model)


class DinoHead(nn.Module):
    """Features -> prototype scores: a two-layer perceptron, a unit-norm bottleneck, cosine prototypes."""

    def __init__(self, width: int, prototypes: int, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, bottleneck))
        self.prototypes = nn.utils.parametrizations.weight_norm(nn.Linear(bottleneck, prototypes, bias=False))
        self.prototypes.parametrizations.weight.original0.data.fill_(1.0)
        self.prototypes.parametrizations.weight.original0.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.prototypes(F.normalize(self.mlp(x), dim=-1))


def _koleo(features: Tensor) -> Tensor:
    """Minus the mean log distance of each feature (B, width), on the unit sphere, to its nearest neighbour."""
    unit = F.normalize(features, dim=-1)
    with torch.no_grad():
        nearest = (unit @ unit.T).fill_diagonal_(-1).argmax(1)
    return -(F.pairwise_distance(unit, unit[nearest]) + 1e-8).log().mean()


class Dinov2Objective(nn.Module):
    """Self-distillation without labels: a student sees crops and masked patches, a slow teacher sees whole views.

    Image-level loss on two global and `local_crops` local crops, patch-level loss on masked patches, and a spread of
    the image features over the sphere (KoLeo), all of Oquab et al. (arXiv 2304.07193, section 4); teacher =
    exponential moving average, its targets sharpened by Sinkhorn-Knopp.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, config: Dinov2Config, *, prototypes: int = 512, local_crops: int = 4, momentum: float = 0.99):
        super().__init__()
        self.student, self.teacher = Dinov2Model(config), Dinov2Model(config)
        width = config.hidden_size
        self.student_heads = nn.ModuleList(DinoHead(width, prototypes) for _ in range(2))
        self.teacher_heads = nn.ModuleList(DinoHead(width, prototypes) for _ in range(2))
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher_heads.load_state_dict(self.student_heads.state_dict())
        self.teacher.requires_grad_(False)
        self.teacher_heads.requires_grad_(False)
        self.size, self.patch = config.image_size, config.patch_size
        self.local_crops, self.momentum = local_crops, momentum
        self.student_temperature, self.teacher_temperature = 0.1, 0.06

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Teacher <- momentum * teacher + (1 - momentum) * student; call it after every optimizer step."""
        for slow, fast in (
            (self.teacher, self.student),
            (self.teacher_heads, self.student_heads),
        ):
            for t, s in zip(slow.parameters(), fast.parameters(), strict=True):
                t.lerp_(s, 1 - self.momentum)

    def _crops(self, images: Tensor, scale: tuple[float, float], size: int, generator: torch.Generator) -> Tensor:
        """Random square crops covering `scale` of the area, flipped, jittered in colour, one in five grey.

        Returns (B, 3, size, size). Two crops of a scene share its backdrop: if their colours were alike, telling
        backdrops apart would be all there is to learn.
        """
        b = len(images)
        draw = torch.rand(b, 9, generator=generator).to(images.device)
        side = (scale[0] + (scale[1] - scale[0]) * draw[:, 0]).sqrt()
        shift = (1 - side)[:, None] * (2 * draw[:, 1:3] - 1)
        flip = torch.where(draw[:, 3] < 0.5, -1.0, 1.0)
        theta = torch.zeros(b, 2, 3, device=images.device)
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = side * flip, side, shift
        grid = F.affine_grid(theta, [b, 3, size, size], align_corners=False)
        crops = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        gain, offset = 1 + 0.6 * (draw[:, 4] - 0.5), 0.8 * (draw[:, 5:8] - 0.5)
        crops = crops * gain.view(-1, 1, 1, 1) + offset.view(-1, 3, 1, 1)
        return torch.where(draw[:, 8].view(-1, 1, 1, 1) < 0.2, crops.mean(1, keepdim=True), crops)

    def _targets(self, scores: Tensor, rounds: int = 3) -> Tensor:
        """Teacher scores (n, prototypes) -> assignments that use all prototypes about equally (Sinkhorn-Knopp)."""
        q = (scores.float() / self.teacher_temperature).softmax(-1)
        for _ in range(rounds):
            q = q / q.sum(0, keepdim=True).clamp_min(1e-9)
            q = q / q.sum(1, keepdim=True).clamp_min(1e-9)
        return q

    def forward(self, images: Tensor, seed: Tensor) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(int(seed[0]))
        x = normalise(images, self.mean, self.std)
        b = len(x)
        globals_ = torch.cat([self._crops(x, (0.4, 1.0), self.size, generator) for _ in range(2)])  # (2B, 3, S, S)
        local_size = self.size // 2 // self.patch * self.patch
        locals_ = torch.cat(
            [self._crops(x, (0.1, 0.4), local_size, generator) for _ in range(self.local_crops)]
        )  # (local_crops * B, 3, S/2, S/2)
        patches = (self.size // self.patch) ** 2
        masked = (torch.rand(2 * b, patches, generator=generator) < 0.35).to(x.device)
        with torch.no_grad():
            seen = self.teacher(globals_).last_hidden_state  # (2B, 1 + patches, width)
            image_target = self._targets(self.teacher_heads[0](seen[:, 0])).view(2, b, -1)
            patch_target = self._targets(self.teacher_heads[1](seen[:, 1:][masked]))
        view = self.student(globals_, bool_masked_pos=masked).last_hidden_state
        small = self.student(locals_).last_hidden_state[:, 0]  # (local_crops * B, width)
        t = self.student_temperature
        global_log = F.log_softmax(self.student_heads[0](view[:, 0]) / t, -1).view(2, b, -1)
        local_log = F.log_softmax(self.student_heads[0](small) / t, -1).view(self.local_crops, b, -1)
        # Each student view is matched to the teacher's other global view; local views to both.
        image_loss = -(image_target.flip(0) * global_log).sum(-1).mean()
        local_loss = -(image_target.mean(0, keepdim=True) * local_log).sum(-1).mean()
        patch_log = F.log_softmax(self.student_heads[1](view[:, 1:][masked]) / t, -1)
        patch_loss = -(patch_target * patch_log).sum(-1).mean()
        spread = sum(_koleo(part) for part in view[:, 0].chunk(2))
        return {"loss": image_loss + local_loss + patch_loss + 0.1 * spread}

    def encoder(self) -> PreTrainedModel:
        return self.teacher


class SamObjective(nn.Module):
    """Masks from one point or one box each; only the best of the proposed masks is trained (Kirillov et al.,
    arXiv 2304.02643, section 3): focal loss x 20 + dice loss, and the predicted IoU's squared error."""

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.model = SamModel(config)
        # Prompts and image places share one fixed random matrix; safetensors wants every tensor once, so make two.
        # transformers, which expects to load it, draws it with a standard deviation of hidden_size / 2, whose waves are
        # finer than a pixel; Segment Anything was trained with 1.
        places = torch.randn_like(self.model.shared_image_embedding.positional_embedding)
        for part in (self.model.shared_image_embedding, self.model.prompt_encoder.shared_embedding):
            part.positional_embedding = nn.Parameter(places.clone(), requires_grad=False)

    def forward(
        self, images: Tensor, points: Tensor, boxes: Tensor, masks: Tensor, use_boxes: Tensor
    ) -> dict[str, Tensor]:
        """points (B, P, 1, 2) and boxes (B, P, 4) in pixels, masks uint8 (B, P, m, m), use_boxes (1,) 0 or 1."""
        b, p = masks.shape[:2]
        if bool(use_boxes[0]):
            prompt = {"input_boxes": boxes.float()}
        else:
            prompt = {
                "input_points": points.float(),
                "input_labels": torch.ones(b, p, 1, dtype=torch.long, device=images.device),
            }
        out = self.model(pixel_values=normalise(images, self.mean, self.std), multimask_output=True, **prompt)
        scores = out.pred_masks.flatten(0, 1)  # (B*P, 3, m, m)
        truth = masks.flatten(0, 1).unsqueeze(1).float().expand_as(scores)
        bce = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
        probability = scores.sigmoid()
        hit = probability * truth + (1 - probability) * (1 - truth)
        focal = (bce * (1 - hit) ** 2).mean((-2, -1))
        overlap = (probability * truth).sum((-2, -1))
        dice = 1 - (2 * overlap + 1) / (probability.sum((-2, -1)) + truth.sum((-2, -1)) + 1)
        best = (20 * focal + dice).min(1)
        with torch.no_grad():
            hard = scores > 0
            both = (hard & (truth > 0.5)).sum((-2, -1)).float()
            iou = both / (hard | (truth > 0.5)).sum((-2, -1)).clamp_min(1)
        iou_loss = F.mse_loss(out.iou_scores.flatten(0, 1), iou)
        return {"loss": best.values.mean() + iou_loss}

    def encoder(self) -> PreTrainedModel:
        part = SamVisionModel(self.model.config.vision_config)
        part.vision_encoder.load_state_dict(self.model.vision_encoder.state_dict())
        return part
