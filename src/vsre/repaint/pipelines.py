"""One diffusion model in memory: diffusers' three SDXL pipelines on one set of components.

Only safetensors are read, no code from a repository is run, and no watermark is drawn. Every pipeline has its own
scheduler object, because a shared one carries the state of the last call. Not thread-safe.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vsre.errors import VsreError, first_line
from vsre.repaint.loading import load_base, load_unet
from vsre.repaint.painter import Setting
from vsre.repaint.presets import DiffusionConfig, Weights, Words

if TYPE_CHECKING:
    import torch

LOADING = {
    *("model", "revision", "variant", "unet", "inpaint_unet", "fp16_vae", "loras", "scheduler"),
    *("device", "dtype", "offload", "vae_slicing", "vae_tiling", "offline"),
}
"""The fields of a configuration that decide what is in memory; painters that agree on them can share it."""

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


class Pipelines:
    """The pipelines of a configuration, loaded when first used.

    Raises VsreError if diffusers (or, for LoRAs, peft) is missing; nothing else is checked before the first use.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        needed = ["diffusers", *(["peft"] if config.loras else [])]
        if missing := [name for name in needed if find_spec(name) is None]:
            raise VsreError(
                f"Painting with a diffusion model needs {' and '.join(missing)}, which is not installed. "
                'Install it: pip install "vsre[diffusion]"'
            )
        self.config = config
        self._pipes: dict[Setting, Any] = {}
        self._offloaded: Setting | None = None

    @property
    def loaded(self) -> bool:
        return bool(self._pipes)

    def release(self) -> None:
        """Drop what was loaded."""
        self._pipes, self._offloaded = {}, None

    def too_long(self, prompt: str) -> bool:
        """Whether either tokenizer makes more tokens of the prompt than its text encoder reads (77 for SDXL), so that
        the library would cut the rest off."""
        pipe = self.of("t2i")
        return any(
            len(tokenizer(prompt, truncation=False, verbose=False).input_ids) > tokenizer.model_max_length
            for tokenizer in (pipe.tokenizer, pipe.tokenizer_2)
        )

    def paint(
        self,
        setting: Setting,
        prompts: Sequence[str],
        seeds: Sequence[int],
        size: tuple[int, int],
        numbers: Words,
        *,
        negative: str = "",
        images: Sequence[Image.Image] = (),
        masks: Sequence[Image.Image] = (),
    ) -> tuple[NDArray[np.float32], int, float | None]:
        """Pictures as [n, height, width, 3] values in 0..1 (not finite if the model overflowed), the number of steps
        run, and the strength that these amount to: the first step's time over the model's number of training times.
        With few steps that is far from the strength asked for. None if the setting has no strength.

        Takes one prompt, one seed and, if the setting has them, one image and one mask of `size` per picture. Raises
        VsreError if memory runs out.
        """
        import torch

        pipe = self._at_work(setting)
        given: dict[str, Any] = {
            "prompt": list(prompts),
            # One generator per picture, on the CPU: the same noise on every device and in every batch.
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            "num_inference_steps": numbers.steps,
            "guidance_scale": numbers.guidance,
            "output_type": "np",
        }
        if negative:
            given["negative_prompt"] = [negative] * len(prompts)
        if setting != "i2i":
            given |= {"width": size[0], "height": size[1]}
        if setting != "t2i":
            assert len(images) == len(prompts) and all(image.size == size for image in images)
            given |= {"image": list(images), "strength": getattr(numbers, "strength")}  # noqa: B009
        if setting == "inpaint":
            assert len(masks) == len(prompts) and all(mask.size == size for mask in masks)
            given["mask_image"] = list(masks)
        try:
            pictures = pipe(**given).images
        except torch.OutOfMemoryError as error:
            raise VsreError(
                f"No memory left for {len(prompts)} pictures of {size[0]} x {size[1]}. Use a smaller batch size, "
                "vae_slicing, vae_tiling, or offload: model."
            ) from error
        if pictures.shape[1:3] != size[::-1]:
            raise RuntimeError(f"asked for {size}, painted {pictures.shape[2]} x {pictures.shape[1]}")
        steps = int(pipe.num_timesteps)
        if setting == "t2i":
            return pictures, steps, None
        times = pipe.scheduler.timesteps
        begins = float(times[len(times) - steps]) / pipe.scheduler.config.num_train_timesteps
        return pictures, steps, round(begins, 4)

    def of(self, setting: Setting) -> Any:
        """The pipeline of a setting; "t2i" is loaded first and lends its components to the others."""
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

        if "t2i" not in self._pipes:
            device = self._device
            base = load_base(self.config, self._dtype)
            base.set_progress_bar_config(disable=True)
            self._pipes["t2i"] = base if self.config.offload != "none" else base.to(device)
        if setting not in self._pipes:
            base = self._pipes["t2i"]
            own: dict[str, Any] = {"scheduler": type(base.scheduler).from_config(base.scheduler.config)}
            if setting == "inpaint" and self.config.inpaint_unet is not None:
                own["unet"] = self._inpaint_unet(self.config.inpaint_unet)
            auto = AutoPipelineForImage2Image if setting == "i2i" else AutoPipelineForInpainting
            # The watermark is not part of the configuration that from_pipe passes on.
            pipe = auto.from_pipe(base, add_watermarker=False, **own)
            pipe.set_progress_bar_config(disable=True)
            self._pipes[setting] = pipe
        return self._pipes[setting]

    def _inpaint_unet(self, weights: Weights) -> Any:
        try:
            unet = load_unet(self.config, weights, self._dtype)
        except Exception as error:
            raise VsreError(f"{weights.model}: cannot be loaded as a UNet ({first_line(error)}).") from error
        return unet if self.config.offload != "none" else unet.to(self._device)

    def describe(self, setting: Setting) -> dict[str, Any]:
        """What made a picture, for its provenance: weights, scheduler, dtype, device, versions."""
        pipe = self.of(setting)
        scheduler = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
        return {
            "weights": self._fingerprints(setting),
            "scheduler": {"name": type(pipe.scheduler).__name__, **scheduler},
            "dtype": str(pipe.unet.dtype).removeprefix("torch."),
            "device": str(self._device),
            "versions": {name: importlib.metadata.version(name) for name in ("diffusers", "torch", "transformers")},
        }

    def _fingerprints(self, setting: Setting) -> dict[str, str]:
        from vsre.diagnose.loading import weights_fingerprint

        pipe = self.of(setting)
        return {name: weights_fingerprint(getattr(pipe, name)) for name in _PARTS}

    def _at_work(self, setting: Setting) -> Any:
        pipe = self.of(setting)
        channels = pipe.unet.config.in_channels
        if setting != "inpaint" and channels != 4:
            raise VsreError(
                f"{self.config.model}: its UNet has {channels} channels and can only inpaint. Leave out {setting}."
            )
        # Hooks that move weights belong to one pipeline at a time.
        if self.config.offload != "none" and self._offloaded != setting:
            if self.config.offload == "model":
                pipe.enable_model_cpu_offload(device=self._device)
            else:
                pipe.enable_sequential_cpu_offload(device=self._device)
            self._offloaded = setting
        return pipe

    @property
    def _device(self) -> torch.device:
        import torch

        name = self.config.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise VsreError(f"device {name}: no CUDA device on this machine. Give auto or cpu.")
        if self.config.offload != "none" and name == "cpu":
            raise VsreError("offload moves weights off a GPU, and this machine has none. Give offload: none.")
        return torch.device(name)

    @property
    def _dtype(self) -> torch.dtype:
        import torch

        name = self.config.dtype
        if name == "auto":
            name = "float16" if self._device.type == "cuda" else "float32"
        dtype: torch.dtype = getattr(torch, name)
        return dtype
