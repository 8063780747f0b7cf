"""The shipped toy SDXL: real classes, small, with its card, and the painter `scenes` in all three settings."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason='needs diffusers: pip install "vsre[diffusion]"')

from vsre.repaint import DiffusionPainter, Painted, PaintJob, Vocabulary
from vsre.repaint.painter import SETTINGS
from vsre.repaint.presets import load_config
from vsre.sources.scenes import CLASSES, DRAWABLE
from vsre.zoo.diffusion_data import Themes, make_paintings
from vsre.zoo.diffusion_figures import triplets_of
from vsre.zoo.train import WEIGHTS

FOLDER = WEIGHTS / "sdxl"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "model_index.json").is_file(), reason="no shipped diffusion model here: run `vsre zoo train sdxl`"
)


def files() -> list[Any]:
    return [f for f in FOLDER.rglob("*") if f.is_file()]


def test_small_safe_and_without_traces_of_a_machine() -> None:
    assert sum(f.stat().st_size for f in files()) < 20e6
    assert {f.suffix for f in files()} <= {".safetensors", ".json", ".md", ".txt"}
    for file in FOLDER.rglob("*.json"):
        text = file.read_text()
        assert not any(part in text for part in ("/home/", "/work", "/root", "/tmp", "/Users/")), file


def test_every_default_of_its_preset_has_its_source() -> None:
    config = load_config("scenes")
    given = {f"{setting}.{field}" for setting in config.settings for field in config.numbers(setting).model_dump()}
    assert config.settings == SETTINGS and given | {"model", "licence", "size"} <= set(config.sources)
    assert config.model == "zoo:sdxl" and config.size == (96, 96)
    trained_on = json.loads((FOLDER / "card.json").read_text())["settings"]["pools"]["unet"]
    assert set(config.classes) == set(trained_on["classes"]) and set(config.relations) == set(trained_on["relations"])


def test_its_card_says_what_it_knows_and_how_well() -> None:
    card = json.loads((FOLDER / "card.json").read_text())
    assert card["made"]["samples seen"] == card["made"]["steps"] * card["made"]["batch"] > 0
    assert card["figures"]["vae_psnr"] > 20
    known = card["settings"]["pools"]["unet"]
    assert set(known["classes"]) <= set(CLASSES) and set(known["relations"]) <= set(DRAWABLE)
    assert {f"{setting}: {what}" for setting in SETTINGS for what in ("pictures", "both found", "PASS", "FAIL")} <= set(
        card["figures"]
    )


def test_the_component_classes_are_sdxls() -> None:
    from diffusers import AutoPipelineForInpainting, StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(FOLDER, dtype=torch.float32, local_files_only=True)
    names = {name: type(part).__name__ for name, part in pipe.components.items() if part is not None}
    assert names == {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "scheduler": "EulerDiscreteScheduler",
    }
    assert pipe.unet.config.addition_embed_type == "text_time" and pipe.unet.config.in_channels == 4
    inpaint = AutoPipelineForInpainting.from_pretrained(FOLDER, dtype=torch.float32, local_files_only=True)
    assert type(inpaint).__name__ == "StableDiffusionXLInpaintPipeline"


def test_the_painter_scenes_paints_in_all_three_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = json.loads((FOLDER / "card.json").read_text())["settings"]["pools"]["unet"]
    themes = Themes(tuple(own["classes"]), ("left of", "right of", "next to"))
    (row,) = triplets_of(make_paintings(tmp_path_factory.mktemp("pool"), themes, 1, seed=5, size=96), [0])
    config = load_config("scenes").with_numbers(steps=4)
    painter = DiffusionPainter(Vocabulary(themes.classes, frozenset(themes.relations)), config)
    assert painter.settings == SETTINGS
    pictures = {}
    for setting in SETTINGS:
        truth = True if setting == "t2i" else None
        result = painter.paint(PaintJob(row, setting, 1, painter.name, painter.parameters_for(setting), truth))
        assert isinstance(result, Painted), result
        assert (result.width, result.height) == (96, 96) and result.notes["model"]["files"].startswith("sha256:")
        with Image.open(io.BytesIO(result.image)) as image:
            pictures[setting] = image.convert("RGB").tobytes()
    assert len(set(pictures.values())) == 3
