"""Converts checkpoint folders from LLaVA to one-encoder VSRE and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LlavaForConditionalGeneration

from vsre.diagnose.loading import load_model
from vsre.errors import VsreError
from vsre.export.opening import own_dtype
from vsre.export.origins import public_name
from vsre.model import VsreForConditionalGeneration
from vsre.model.from_llava import check_equal, llava_from_vsre, vsre_from_llava
from vsre.train.checkpoints import save_model


def convert_from_llava(checkpoint: str | Path, out: str | Path, *, dtype: str | None = None) -> dict[str, Any]:
    """Write a LLaVA checkpoint to `out` as a one-encoder VSRE model with its processor; returns what was found.

    Raises VsreError as `vsre_from_llava` and `check_equal` do, and for a checkpoint that is no LLaVA.
    """
    out = _free(out)
    loaded = load_model(checkpoint, device="cpu", dtype=dtype or own_dtype(checkpoint))
    if not isinstance(loaded.model, LlavaForConditionalGeneration):
        raise VsreError(f"{checkpoint}: a {type(loaded.model).__name__}, not a LLaVA (LlavaForConditionalGeneration).")
    model, processor = vsre_from_llava(loaded.model, loaded.processor, name=public_name(checkpoint))
    apart = check_equal(model, loaded.model)
    save_model(model, processor, out)
    spec = model.config.specs[0]
    return {
        "encoder": f"{spec.name}, layer {spec.layer}, {spec.grid}x{spec.grid} patches, CLS: {spec.cls}",
        "visual_tokens": model.config.image_tokens,
        "largest_difference_of_logits": apart,
        "chat_template": "its own"
        if processor.chat_template == loaded.processor.chat_template
        else "VSRE's, same prompts",
        "pictures": _shown(loaded.processor.image_processor, spec.image_size - spec.usable),
    }


def convert_to_llava(checkpoint: str | Path, out: str | Path, *, dtype: str | None = None) -> dict[str, Any]:
    """Write a one-encoder VSRE checkpoint to `out` as LLaVA with its processor; returns what was found.

    Raises VsreError as `llava_from_vsre` and `check_equal` do, and for a checkpoint that is no VSRE.
    """
    out = _free(out)
    loaded = load_model(checkpoint, device="cpu", dtype=dtype or own_dtype(checkpoint))
    if not isinstance(loaded.model, VsreForConditionalGeneration):
        raise VsreError(f"{checkpoint}: a {type(loaded.model).__name__}, not a VSRE model.")
    model, processor = llava_from_vsre(loaded.model, loaded.processor)
    apart = check_equal(loaded.model, model)
    save_model(model, processor, out)
    return {
        "visual_tokens": model.config.image_seq_length,
        "largest_difference_of_logits": apart,
        "pictures": "padded to a square, then scaled: as VSRE shows them, but for the borders' shade and rounding",
    }


def _free(out: str | Path) -> Path:
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise VsreError(f"{out}: there is something already here. Choose a new or empty folder.")
    return out


def _shown(images: Any, strip: int) -> str:
    """How the pictures of the two models differ, by LLaVA's image processor."""
    if images.do_center_crop:
        told = "LLaVA cuts out the centre of pictures that are not square, VSRE shows them whole between borders"
    elif getattr(images, "do_pad", False):
        told = "both show them whole between borders"
    else:
        told = "LLaVA squeezes pictures that are not square, VSRE shows them whole between borders"
    told += "; square pictures are the same"
    return told if not strip else f"{told}, but for {strip} pixels at the right and bottom that no patch covers"
