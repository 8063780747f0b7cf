from pathlib import Path
from typing import Any

import pytest

from vsre.errors import VsreError
from vsre.repaint.presets import PRESETS, DiffusionConfig, load_config
from vsre.zoo.train import load_settings


def from_the_hub(name: str) -> bool:
    return not load_config(name).model.startswith("zoo:")


@pytest.mark.parametrize("name", filter(from_the_hub, PRESETS.names()))
def test_every_default_of_a_preset_has_its_source(name: str) -> None:
    config = load_config(name)
    assert config.settings == ("t2i", "i2i", "inpaint") and config.about and config.licence
    given = {f"{s}.{field}" for s in config.settings for field in config.numbers(s).model_dump()}
    given |= {"model", "licence", "size", "fp16_vae"}
    given |= {part for part in ("unet", "inpaint_unet", "scheduler", "loras") if getattr(config, part)}
    assert given <= set(config.sources)
    parts = [config, config.unet, config.inpaint_unet, config.fp16_vae, *config.loras]
    assert all(part is None or len(part.revision or "") == 40 for part in parts), (
        "every repository is pinned to a commit"
    )


def test_the_published_numbers() -> None:
    config = load_config("sdxl")
    assert config.t2i is not None and config.i2i is not None and config.inpaint is not None
    assert (config.t2i.steps, config.t2i.guidance) == (30, 5.0)
    assert (config.i2i.strength, config.inpaint.strength, config.inpaint.guidance) == (0.5, 0.99, 7.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"i2i": {"steps": 1}}, r"i2i: 1 steps x strength 0.5 = 0.5.*at least 2 steps"),
        ({"inpaint": {"steps": 10, "strength": 0.09}}, r"10 steps x strength 0.09.*at least 12 steps"),
        ({"inpaint": {"strength": 1.0}}, "inpaint.strength"),
        ({"i2i": {"strength": 0}}, "i2i.strength"),
        ({"size": [1000, 1001]}, "multiples of 8"),
        ({"t2i": {"guidance": 1.0}, "prompts": {"negative": "blurry"}}, "negative prompt does nothing in t2i"),
        ({"offload": "model", "device": "cpu"}, "off a GPU"),
        ({"device": "gpu"}, "device"),
        ({"batch_size": 0}, "batch_size"),
        ({"mask": {"dilate": 0.1}}, "mask.dilate"),
        ({"loras": [{"model": "a/b", "file": "x.bin"}]}, "loras.0.file"),
        ({"loras": [{"model": "a/b", "file": "x.safetensors"}], "inpaint_unet": {"model": "c/d"}}, "one UNet"),
        ({"unet": {"model": "a/b", "file": "x.ckpt"}}, "unet.file"),
        ({"scheduler": {"name": "Anything"}}, "scheduler.name"),
    ],
)
def test_what_cannot_be_painted_is_told_before_anything_is_loaded(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(VsreError, match=message):
        load_config("sdxl").changed(**changes)


def test_one_number_for_the_settings_that_are_asked_for() -> None:
    config = load_config("sdxl")
    with pytest.raises(VsreError, match=r"inpaint\.strength"):
        config.with_numbers(strength=1.0)
    only = config.only(["i2i"]).with_numbers(strength=1.0, steps=7)
    assert only.settings == ("i2i",) and only.i2i is not None
    assert (only.i2i.steps, only.i2i.strength, only.i2i.guidance) == (7, 1.0, 5.0)
    with pytest.raises(VsreError, match="inpaint: the painter has i2i"):
        only.only(["inpaint"])


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: sdxl-turbo\nmodel: ./weights\nt2i: {steps: 2}\nprompts: {suffix: ', a drawing'}\n")
    config = load_config(str(mine))
    assert config.model == "./weights" and config.revision is None and config.variant is None and not config.licence
    assert config.t2i is not None and (config.t2i.steps, config.t2i.guidance) == (2, 0.0)
    assert config.scheduler is not None and config.prompts.suffix == ", a drawing"
    mine.write_text("model: ./weights\nt2i: {steps: 30, guidance: 5}\n")
    assert load_config(str(mine)) == DiffusionConfig.model_validate(
        {"model": "./weights", "t2i": {"steps": 30, "guidance": 5}}
    )
    for text, message in (
        ("- a list", "a mapping"),
        ("model: [", "not valid YAML"),
        ("extends: sdxxl\n", "none of sdxl"),
        ("model: x\n", "no setting"),
    ):
        mine.write_text(text)
        with pytest.raises(VsreError, match=message):
            load_config(str(mine))
    with pytest.raises(VsreError, match="no such file"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(VsreError, match="Shipped: scene, sdxl"):
        load_config("sdxxl")


def test_the_toy_model_is_only_asked_for_what_it_was_trained_on() -> None:
    trained = load_settings()["sdxl"]["pools"]["unet"]
    config = load_config("scenes")
    assert list(config.classes) == trained["classes"]
    assert list(config.relations) == trained["relations"]
