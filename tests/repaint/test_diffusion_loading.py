"""What is read from disk, and what is refused."""

import builtins
import importlib.util
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason='needs diffusers: pip install "vsre[diffusion]"')

import torch
from safetensors.torch import load_file, save_file
from tiny_sdxl import tiny_config, tiny_sdxl

from vsre.errors import VsreError
from vsre.repaint.pipelines import Pipelines
from vsre.repaint.weights import identity

HAS_PEFT = importlib.util.find_spec("peft") is not None


@pytest.fixture(scope="module")
def inpainting_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose UNet takes 9 channels: latents, mask, masked image."""
    return tiny_sdxl(tmp_path_factory.mktemp("tiny-inpainting"), unet_channels=9, seed=1)


def paint(pipelines: Pipelines, setting: Any, **more: Any) -> Any:
    numbers = pipelines.config.numbers(setting)
    pictures, *_ = pipelines.paint(setting, ["a cat"], [7], (64, 48), numbers, **more)
    return pictures


def photo_and_mask() -> dict[str, Any]:
    from PIL import Image

    return {
        "images": [Image.linear_gradient("L").resize((64, 48)).convert("RGB")],
        "masks": [Image.new("L", (64, 48), 255)],
    }


def test_the_inpainting_unet_joins_the_other_components(tiny_sdxl_folder: Path, inpainting_folder: Path) -> None:
    config = tiny_config(tiny_sdxl_folder, inpaint_unet={"model": str(inpainting_folder), "subfolder": "unet"})
    pipelines = Pipelines(config)
    assert paint(pipelines, "inpaint", **photo_and_mask()).shape == (1, 48, 64, 3)
    t2i, inpaint = pipelines.of("t2i"), pipelines.of("inpaint")
    assert (t2i.unet.config.in_channels, inpaint.unet.config.in_channels) == (4, 9)
    assert t2i.vae is inpaint.vae and t2i.text_encoder_2 is inpaint.text_encoder_2
    assert pipelines.describe("inpaint")["weights"]["unet"] != pipelines.describe("t2i")["weights"]["unet"]
    assert pipelines.describe("inpaint")["weights"]["vae"] == pipelines.describe("t2i")["weights"]["vae"]


def test_a_model_that_inpaints_only_does_nothing_else(inpainting_folder: Path) -> None:
    pipelines = Pipelines(tiny_config(inpainting_folder))
    assert paint(pipelines, "inpaint", **photo_and_mask()).shape == (1, 48, 64, 3)
    for setting in ("t2i", "i2i"):
        with pytest.raises(VsreError, match=f"9 channels and can only inpaint. Leave out {setting}"):
            paint(pipelines, setting, images=photo_and_mask()["images"])


@pytest.mark.parametrize(
    ("scheduler", "spacing"),
    [
        ({"name": "EulerAncestralDiscreteScheduler", "options": {"timestep_spacing": "trailing"}}, "trailing"),
        ({"name": "LCMScheduler"}, "leading"),
    ],
)
def test_the_fast_models_schedulers(tiny_sdxl_folder: Path, scheduler: dict[str, Any], spacing: str) -> None:
    numbers = {"steps": 4, "guidance": 0.0}
    pipelines = Pipelines(tiny_config(tiny_sdxl_folder, scheduler=scheduler, t2i=numbers, i2i=numbers, inpaint=numbers))
    assert paint(pipelines, "t2i").shape == (1, 48, 64, 3)
    for setting in ("t2i", "i2i", "inpaint"):
        used = pipelines.of(setting).scheduler
        assert type(used).__name__ == scheduler["name"] and used.config.timestep_spacing == spacing
        assert used.config.beta_start == 0.00085, "the rest is the model's own"


def test_a_unet_in_one_file(tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    weights = load_file(tiny_sdxl_folder / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({k: v * 0.5 for k, v in weights.items()}, tmp_path / "fast.safetensors")
    config = tiny_config(tiny_sdxl_folder, unet={"model": str(tmp_path), "file": "fast.safetensors"})
    loaded = Pipelines(config).of("t2i").unet.state_dict()
    assert all(torch.equal(loaded[k], v * 0.5) for k, v in weights.items())
    save_file({"another": torch.ones(2)}, tmp_path / "fast.safetensors")
    with pytest.raises(VsreError, match="cannot be loaded"):
        Pipelines(config).of("t2i")


def lora(folder: Path, name: str = "style.safetensors") -> dict[str, Any]:
    key = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    torch.manual_seed(0)
    save_file({f"{key}.lora_A.weight": torch.randn(2, 16), f"{key}.lora_B.weight": torch.randn(16, 2)}, folder / name)
    return {"model": str(folder), "file": name}


@pytest.mark.skipif(not HAS_PEFT, reason='needs peft: pip install "vsre[diffusion]"')
def test_a_lora_is_fused_for_all_three(tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    plain = Pipelines(tiny_config(tiny_sdxl_folder)).of("t2i").unet.state_dict()
    config = tiny_config(tiny_sdxl_folder, loras=[{**lora(tmp_path), "weight": 0.5}])
    pipelines = Pipelines(config)
    styled = pipelines.of("t2i").unet.state_dict()
    assert pipelines.of("inpaint").unet is pipelines.of("t2i").unet
    changed = [k for k in plain if not torch.equal(plain[k], styled[k])]
    assert set(styled) == set(plain) and changed == [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    ]
    stored = load_file(tmp_path / "style.safetensors")
    down, up = (next(v for k, v in stored.items() if part in k) for part in ("lora_A", "lora_B"))
    assert torch.allclose(styled[changed[0]] - plain[changed[0]], 0.5 * up @ down, atol=1e-5)


@pytest.mark.skipif(not HAS_PEFT, reason='needs peft: pip install "vsre[diffusion]"')
def test_a_lora_that_does_not_fit_or_is_no_safetensors_is_refused(tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    save_file({"unet.nothing.lora_A.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    config = tiny_config(tiny_sdxl_folder, loras=[{"model": str(tmp_path), "file": "other.safetensors"}])
    with pytest.raises(VsreError):
        Pipelines(config).of("t2i")
    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(_Evil(tmp_path / "ran")))
    config = tiny_config(tiny_sdxl_folder, loras=[{"model": str(tmp_path), "file": "evil.safetensors"}])
    with pytest.raises(VsreError, match="cannot be loaded"):
        Pipelines(config).of("t2i")
    assert not (tmp_path / "ran").exists(), "nothing may be unpickled"


class _Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return builtins.open, (str(self.path), "w")


def test_weights_that_could_run_code_are_not_read(tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        folder = tmp_path / part
        shutil.copytree(tiny_sdxl_folder, folder)
        weights = folder / part / f"{name}.safetensors"
        ending = ".bin" if part == "unet" else ""
        torch.save(load_file(weights), folder / part / (name + ending if ending else "pytorch_model.bin"))
        weights.unlink()
        with pytest.raises(VsreError, match="safetensors"):
            Pipelines(tiny_config(folder)).of("t2i")


def test_other_models_and_broken_folders_are_told_apart(tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="hub's cache lacks it"):
        Pipelines(tiny_config(tmp_path / "none")).of("t2i")
    with pytest.raises(VsreError, match="cannot be loaded as an SDXL pipeline"):
        Pipelines(tiny_config(tmp_path)).of("t2i")
    other = tmp_path / "other"
    shutil.copytree(tiny_sdxl_folder, other)
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(VsreError, match=r"a FluxPipeline. Painters here"):
        Pipelines(tiny_config(other)).of("t2i")
    (other / "model_index.json").write_text(json.dumps(index | {"unet": ["my_code", "MyUNet"]}))
    (other / "unet" / "my_code.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(VsreError, match="cannot be loaded"):
        Pipelines(tiny_config(other)).of("t2i")
    cut = tmp_path / "cut"
    shutil.copytree(tiny_sdxl_folder, cut)
    weights = cut / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(VsreError, match="cannot be loaded"):
        Pipelines(tiny_config(cut)).of("t2i")


def test_no_watermark_even_where_its_package_is_installed(
    tiny_sdxl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines import stable_diffusion_xl

    for name in (
        "pipeline_stable_diffusion_xl",
        "pipeline_stable_diffusion_xl_img2img",
        "pipeline_stable_diffusion_xl_inpaint",
    ):
        module = getattr(stable_diffusion_xl, name)
        monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
        monkeypatch.setattr(module, "StableDiffusionXLWatermarker", lambda: pytest.fail("a watermark"), raising=False)
    pipelines = Pipelines(tiny_config(tiny_sdxl_folder))
    assert [pipelines.of(setting).watermark for setting in ("t2i", "i2i", "inpaint")] == [None] * 3


def test_vae_options_and_devices(tiny_sdxl_folder: Path) -> None:
    vae = Pipelines(tiny_config(tiny_sdxl_folder, vae_slicing=True, vae_tiling=True)).of("t2i").vae
    assert vae.use_slicing and vae.use_tiling
    half = Pipelines(tiny_config(tiny_sdxl_folder, dtype="bfloat16"))
    assert half.of("i2i").unet.dtype == torch.bfloat16 and half.describe("i2i")["dtype"] == "bfloat16"
    if not torch.cuda.is_available():
        for changes, message in (
            ({"device": "cuda"}, "no CUDA device"),
            ({"device": "auto", "offload": "model"}, "has none"),
        ):
            with pytest.raises(VsreError, match=message):
                Pipelines(tiny_config(tiny_sdxl_folder, **changes)).of("t2i")


def test_the_fixed_vae_is_for_float16_alone(tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    other = tiny_sdxl(tmp_path, seed=5)
    fixed = {"model": str(other), "subfolder": "vae"}
    config = tiny_config(tiny_sdxl_folder, fp16_vae=fixed)
    wanted = load_file(other / "vae" / "diffusion_pytorch_model.safetensors")
    [name] = [k for k in wanted if k == "decoder.conv_out.weight"]
    for dtype, is_fixed in (("float32", False), ("float16", True)):
        vae = Pipelines(config.changed(dtype=dtype)).of("t2i").vae
        assert torch.equal(vae.state_dict()[name].float(), wanted[name].half().float()) is is_fixed, dtype


def test_missing_packages_are_named(tiny_sdxl_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vsre.repaint import pipelines

    monkeypatch.setattr(pipelines, "find_spec", lambda name: None)
    with pytest.raises(VsreError, match=r'needs diffusers, which.*pip install "vsre\[diffusion\]"'):
        Pipelines(tiny_config(tiny_sdxl_folder))
    with pytest.raises(VsreError, match="diffusers and peft"):
        Pipelines(tiny_config(tiny_sdxl_folder, loras=[{"model": "a/b", "file": "c.safetensors"}]))


def test_what_the_weights_are_is_known_before_they_are_loaded(tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_sdxl_folder, copy)
    same = identity(tiny_config(tiny_sdxl_folder))
    assert same == identity(tiny_config(copy)) and set(same["model"]) == {"files"}, "where a folder lies plays no part"
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v * 1.01 for k, v in tensors.items()}, weights)
    assert identity(tiny_config(copy)) != same
    hub = tiny_config(Path("someone/something"), dtype="auto")
    assert identity(hub)["model"] == {"repository": "someone/something", "revision": "main"}
    assert "fp16_vae" in identity(hub) and "fp16_vae" not in same
    with pytest.raises(VsreError, match="no such file"):
        identity(tiny_config(copy, loras=[{"model": str(copy), "file": "none.safetensors"}]))
