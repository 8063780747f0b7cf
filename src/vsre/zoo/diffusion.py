"""The tiny diffusion model: SDXL's component classes at toy size, and their training objective.

One VAE at a quarter of the picture's sides (sprites of 20 pixels would not survive an eighth), two text encoders with a
tokenizer each, a UNet with added time conditions. The UNet predicts velocity (Salimans and Ho, arXiv 2202.00512), each
noise level weighted by min-SNR (Hang et al., arXiv 2303.09556).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(texts: Iterable[str], pad: str, settings: dict[str, Any]) -> CLIPTokenizer:
    """CLIP's tokenizer, its merges learnt from `texts`: a frequent word is one token, other text goes letter by letter.

    settings: `vocab_size`, the most tokens that are learnt; `length`, the most that are read of a prompt.
    """
    blank = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[])
    backend = blank.backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=settings["vocab_size"],
        initial_alphabet=_letters(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    whole = dict.fromkeys([*words, *(f"{letter}</w>" for letter in _letters()), START, END])
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(whole)},
        merges=[tuple(pair) for pair in model["merges"]],
        pad_token=pad,
        model_max_length=settings["length"],
    )


def _letters() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def make_text_encoders(tokenizers: tuple[CLIPTokenizer, CLIPTokenizer], settings: dict[str, Any]) -> tuple[Any, Any]:
    first, second = (
        CLIPTextConfig(
            **{k: v for k, v in settings.items() if k != "length"},
            vocab_size=len(tokenizer),
            max_position_embeddings=settings["length"],
            projection_dim=settings["hidden_size"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for tokenizer in tokenizers
    )
    return CLIPTextModel(first), CLIPTextModelWithProjection(second)


def make_unet(settings: dict[str, Any], size: int, text_width: int) -> Any:
    from diffusers import UNet2DConditionModel

    plain, crossed = 1, len(settings["block_out_channels"]) - 1
    return UNet2DConditionModel(
        **settings,
        sample_size=size,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * crossed,
        up_block_types=("CrossAttnUpBlock2D",) * crossed + ("UpBlock2D",) * plain,
        cross_attention_dim=2 * text_width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        projection_class_embeddings_input_dim=6 * settings["addition_time_embed_dim"] + text_width,
    )


def make_scheduler() -> Any:
    """SDXL's noise schedule, for a UNet that predicts velocity."""
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


class DiffusionObjective(nn.Module):
    """UNet and text encoders, trained together; their running average is what is shipped."""

    PARTS = ("unet", "text_encoder", "text_encoder_2")
    time_ids: Tensor
    alphas: Tensor

    def __init__(
        self, unet: Any, text_encoder: Any, text_encoder_2: Any, *, size: int, average: float, drop: float
    ) -> None:
        from diffusers.models.attention_processor import AttnProcessor

        super().__init__()
        self.unet, self.text_encoder, self.text_encoder_2 = unet, text_encoder, text_encoder_2
        # The backward pass of torch's fused attention is slow on CPUs: it took 40 % of the whole step.
        unet.set_attn_processor(AttnProcessor())
        for encoder in (text_encoder, text_encoder_2):
            encoder.set_attn_implementation("eager")
        self.averaged = nn.ModuleDict({name: copy.deepcopy(getattr(self, name)) for name in self.PARTS})
        self.averaged.requires_grad_(False)
        self.average, self.drop = average, drop
        self.register_buffer("time_ids", torch.tensor([size, size, 0, 0, size, size], dtype=torch.float32), False)
        self.register_buffer("alphas", make_scheduler().alphas_cumprod.float(), False)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        share = 1 - min(self.average, (1 + step) / (10 + step))
        for name in self.PARTS:
            for kept, now in zip(self.averaged[name].parameters(), getattr(self, name).parameters(), strict=True):
                kept.lerp_(now, share)

    def forward(self, latents: Tensor, ids: Tensor, ids_2: Tensor, seed: Tensor) -> dict[str, Tensor]:
        """latents (B, 4, h, w) float; ids, ids_2 long (B, length)."""
        n, device = len(latents), latents.device
        generator = torch.Generator().manual_seed(int(seed[0]))
        noise = torch.randn(latents.shape, generator=generator).to(device)
        # One from each of B equal parts of the schedule: less variance than B independent ones.
        spread = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        times = (spread * len(self.alphas)).long().to(device)
        kept = (torch.rand(n, generator=generator) >= self.drop).float().to(device)
        alpha = self.alphas[times][:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with torch.autocast(device.type, torch.bfloat16):
            first = self.text_encoder(ids, output_hidden_states=True)
            second = self.text_encoder_2(ids_2, output_hidden_states=True)
            words = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
            added = {"text_embeds": second.text_embeds * kept[:, None], "time_ids": self.time_ids.expand(n, -1)}
            found = self.unet(noisy, times, words * kept[:, None, None], added_cond_kwargs=added).sample
        snr = alpha / (1 - alpha)
        weight = snr.clamp(max=5) / (snr + 1)
        return {"loss": (F.mse_loss(found.float(), target, reduction="none") * weight).mean()}
