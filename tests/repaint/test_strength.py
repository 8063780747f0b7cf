"""The strength that few whole steps make of the one asked for: told wherever it is far from that."""

from pathlib import Path
from typing import Any

import pytest
from test_repaint_cli import vsre

from vsre.cli.repaint_options import tell_strength
from vsre.repaint.presets import load_config
from vsre.repaint.statistics import count


def test_few_steps_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for name, far in (("sdxl", []), ("sdxl-turbo", ["inpaint"]), ("sdxl-lcm", ["inpaint"]), ("scenes", [])):
        config = load_config(name)
        assert list(config.far_from_asked()) == far
        tell_strength(config)
        told = " ".join(capsys.readouterr().err.split())
        assert ("begin at about 0.75" in told) is bool(far) and ("3 whole steps" in told) is bool(far)
    assert load_config("sdxl-turbo").with_numbers(steps=12).far_from_asked() == {}
    one = load_config("sdxl").with_numbers(steps=3, strength=0.65)
    assert list(one.far_from_asked()) == ["i2i", "inpaint"]


def test_presets_show_it() -> None:
    shown = vsre("presets")
    assert shown.count("(0.75)") == 3, "of Turbo, Lightning and LCM"


@pytest.mark.parametrize(
    ("scheduler", "steps", "strength", "run"),
    [
        ({"name": "EulerDiscreteScheduler", "options": {"timestep_spacing": "trailing"}}, 4, 0.99, 0.749),
        ({"name": "EulerAncestralDiscreteScheduler", "options": {"timestep_spacing": "trailing"}}, 4, 0.5, 0.499),
        ({"name": "LCMScheduler"}, 4, 0.99, 0.759),
        ({"name": "UniPCMultistepScheduler", "options": {"timestep_spacing": "trailing"}}, 4, 0.99, 0.749),
    ],
)
def test_pictures_say_where_their_steps_began(
    tiny_sdxl_folder: Path, scheduler: dict[str, Any], steps: int, strength: float, run: float
) -> None:
    from PIL import Image
    from tiny_sdxl import tiny_config

    from vsre.repaint.pipelines import Pipelines

    numbers = {"steps": steps, "strength": strength, "guidance": 1}
    config = tiny_config(tiny_sdxl_folder, scheduler=scheduler, inpaint=numbers, i2i=numbers)
    pipelines = Pipelines(config)
    size = (64, 64)
    given: dict[str, Any] = {"images": [Image.new("RGB", size, "red")]}
    _, ran, begins = pipelines.paint("i2i", ["a cat"], [7], size, config.numbers("i2i"), **given)
    assert (ran, begins) == (int(steps * strength), run)
    given["masks"] = [Image.new("L", size, 255)]
    _, ran, begins = pipelines.paint("inpaint", ["a cat"], [7], size, config.numbers("inpaint"), **given)
    assert (ran, begins) == (int(steps * strength), run)
    _, _, none = pipelines.paint("t2i", ["a cat"], [7], size, config.numbers("t2i"))
    assert none is None


def test_statistics_tell_it_beside_the_strength() -> None:
    row = {
        "setting": "inpaint", "status": "painted", "verdicts": None, "picture": "p", "steps": 4, "guidance": 0.0,
        "strength": 0.99, "strength_run": 0.749, "reason": None, "truth": "intended", "bytes": 1, "seconds": 1.0,
    }  # fmt: skip
    assert list(count([row])["numbers"]) == ["inpaint: steps 4, guidance 0, strength 0.99, run at 0.75"]
