"""Reading an SDXL pipeline from a hub repository or a folder: safetensors only, and no code that came with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsre.errors import VsreError, first_line
from vsre.repaint.presets import DiffusionConfig, Weights
from vsre.repaint.weights import located, weights_file

if TYPE_CHECKING:
    import torch


def load_base(config: DiffusionConfig, dtype: torch.dtype) -> Any:
    """A StableDiffusionXLPipeline on the CPU, with the configuration's UNet, VAE, LoRAs and scheduler.

    Raises VsreError if it cannot be loaded or is not SDXL.
    """
    import diffusers
    import torch
    import transformers
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        _must_be_sdxl(config)
        own: dict[str, Any] = {}
        if config.unet is not None:
            own["unet"] = load_unet(config, config.unet, dtype)
        if config.fp16_vae is not None and dtype == torch.float16:
            own["vae"] = _component(config, "AutoencoderKL", config.fp16_vae, dtype)
        pipe = diffusers.AutoPipelineForText2Image.from_pretrained(
            located(config.model),
            revision=config.revision,
            variant=config.variant if dtype != torch.float32 else None,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=config.offline,
            add_watermarker=False,
            **own,
        )
        _add_loras(config, pipe)
        if config.scheduler is not None:
            scheduler = getattr(diffusers, config.scheduler.name)
            pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **config.scheduler.options)
    except VsreError:
        raise
    # A broken folder or an unreachable hub can fail anywhere in the library; report the reason in one message.
    except Exception as error:
        hub = (
            ""
            if not config.offline or Path(located(config.model)).is_dir()
            else " The hub's cache lacks it, and offline forbids downloading."
        )
        raise VsreError(
            f"{config.model}: cannot be loaded as an SDXL pipeline ({first_line(error)}).{hub} Expected a hub id or a "
            "folder with model_index.json and safetensors weights, as diffusers' save_pretrained writes them."
        ) from error
    if config.vae_slicing:
        pipe.vae.enable_slicing()
    if config.vae_tiling:
        pipe.vae.enable_tiling()
    return pipe


def load_unet(config: DiffusionConfig, weights: Weights, dtype: torch.dtype) -> Any:
    """A whole UNet, or the base model's with the weights of one file. Raises what the library raises."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    if weights.file is None:
        return _component(config, "UNet2DConditionModel", weights, dtype)
    where = {"revision": config.revision, "local_files_only": config.offline}
    unet = UNet2DConditionModel.from_config(
        UNet2DConditionModel.load_config(located(config.model), subfolder="unet", **where)
    )
    unet.load_state_dict(load_file(weights_file(weights, offline=config.offline)))
    return unet.to(dtype)


def _component(config: DiffusionConfig, cls: str, weights: Weights, dtype: torch.dtype) -> Any:
    import diffusers
    import torch

    return getattr(diffusers, cls).from_pretrained(
        located(weights.model),
        subfolder=weights.subfolder,
        revision=weights.revision,
        variant=weights.variant if dtype != torch.float32 else None,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=config.offline,
    )


def _add_loras(config: DiffusionConfig, pipe: Any) -> None:
    """Fuse the LoRAs into the weights, so that all three pipelines have them."""
    from safetensors.torch import load_file

    for index, lora in enumerate(config.loras):
        # Read here and not by the library, which falls back to pickle.
        pipe.load_lora_weights(load_file(weights_file(lora, offline=config.offline)), adapter_name=f"lora{index}")
        if f"lora{index}" not in pipe.get_active_adapters():
            raise VsreError(f"{lora.model}/{lora.file}: nothing in this file fits the model.")
    if config.loras:
        names = [f"lora{index}" for index in range(len(config.loras))]
        pipe.set_adapters(names, [lora.weight for lora in config.loras])
        pipe.fuse_lora()
        pipe.unload_lora_weights()


def _must_be_sdxl(config: DiffusionConfig) -> None:
    """Raise VsreError for another kind of model, before gigabytes of it are read."""
    from diffusers import DiffusionPipeline

    with warnings.catch_warnings():
        # The library passes the hub's client a deprecated option.
        warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
        index: Mapping[str, Any] = DiffusionPipeline.load_config(
            located(config.model), revision=config.revision, local_files_only=config.offline
        )
    name = str(index.get("_class_name"))
    if not name.startswith("StableDiffusionXL"):
        raise VsreError(f"{config.model}: is a {name}. Only SDXL (StableDiffusionXLPipeline) is supported.")
