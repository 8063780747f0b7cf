"""Which weights a diffusion painter uses: identified before they are loaded, and located on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import vsre
from vsre.errors import VsreError
from vsre.repaint.presets import DiffusionConfig, Lora, Weights

ZOO = Path(vsre.__file__).parent / "zoo" / "weights"
ZOO_PREFIX = "zoo:"

_BLOCK, _BLOCKS = 1 << 16, 64


def located(model: str) -> str:
    """The folder of `zoo:NAME` inside the package; a hub id or any other folder unchanged. Raises VsreError if the zoo
    has no such pipeline."""
    if not model.startswith(ZOO_PREFIX):
        return model
    folder = ZOO / model.removeprefix(ZOO_PREFIX)
    if not (folder / "model_index.json").is_file():
        there = ", ".join(f"{ZOO_PREFIX}{path.parent.name}" for path in sorted(ZOO.glob("*/model_index.json")))
        raise VsreError(f"{model}: no such diffusion model in the zoo. There is {there or 'none'}.")
    return str(folder)


def identity(config: DiffusionConfig) -> dict[str, Any]:
    """What identifies the weights before they are loaded: hub ids with their revisions, fingerprints of folders and
    files.

    A folder's name plays no part. Raises VsreError for a missing file.
    """
    return {
        "model": _identity(Weights(model=config.model, revision=config.revision)),
        **{
            name: _identity(part)
            for name in ("unet", "inpaint_unet", "fp16_vae")
            if (part := getattr(config, name)) is not None
            and (name != "fp16_vae" or config.dtype in ("auto", "float16"))
        },
        **({"loras": [{**_identity(lora), "weight": lora.weight} for lora in config.loras]} if config.loras else {}),
    }


def _identity(part: Weights | Lora) -> dict[str, str]:
    folder = Path(located(part.model))
    where = {name: said for name in ("file", "subfolder", "variant") if (said := getattr(part, name, None))}
    if not folder.is_dir():
        named = {"repository": part.model, "revision": part.revision or "main"}
        return named | where
    root = folder / (getattr(part, "subfolder", None) or "")
    files = [Path(weights_file(part, offline=True))] if part.file else sorted(p for p in root.rglob("*") if _counts(p))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\n{path.stat().st_size}\n".encode())
        digest.update(_sampled(path))
    # A folder may hold several variants; its fingerprint covers all of them.
    which = {"variant": where["variant"]} if "variant" in where else {}
    return {"files": "sha256:" + digest.hexdigest()[:24], **which}


def _counts(path: Path) -> bool:
    return path.suffix in {".json", ".txt", ".safetensors"} and path.is_file()


def _sampled(path: Path) -> bytes:
    """A hash of the beginning of a file (a safetensors header) and of evenly spaced blocks: fast at any size; it
    distinguishes checkpoints of one training run, but not a change made to single weights."""
    step = max(path.stat().st_size // _BLOCKS, _BLOCK)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for at in range(0, path.stat().st_size, step):
            file.seek(at)
            digest.update(file.read(_BLOCK))
    return digest.digest()


def weights_file(part: Weights | Lora, *, offline: bool) -> str:
    """The path of a part's file, downloaded from the hub if it is not in a folder."""
    assert part.file is not None
    if Path(located(part.model)).is_dir():
        path = Path(located(part.model), part.file)
        if not path.is_file():
            raise VsreError(f"{path}: no such file.")
        return str(path)
    from huggingface_hub import hf_hub_download

    return hf_hub_download(part.model, part.file, revision=part.revision, local_files_only=offline)
