"""The repaint step of recipes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from rich.console import Console
from tiny_sdxl import tiny_config

from vsre.recipes import load_recipe, recipe_text
from vsre.recipes.data_sets import question_sources
from vsre.recipes.run import Steps
from vsre.recipes.schema import Recipe, Repaint
from vsre.repaint import repaint, shards
from vsre.repaint.specs import Diffusion, Scenes
from vsre.repaint.work import ShardPainter
from vsre.triplets import read_triplets


def recipe_of(small_world: Path, out: Path, **repaint: Any) -> Recipe:
    """A recipe with the small world as its source, already read, and one repainted question source."""
    raw = yaml.safe_load(recipe_text("smoke")[0])
    raw |= {"models": [], "data": {"mine": {"repaint": repaint, "pack": "phase2"}}}
    out.mkdir()
    (out / "triplets").symlink_to(small_world / "triplets")
    (out / "world").symlink_to(small_world)
    (out / "mine.yaml").write_text(yaml.safe_dump(raw))
    return load_recipe(str(out / "mine.yaml"))


def test_a_painter_is_named_as_on_the_command_line(tmp_path: Path) -> None:
    assert Repaint().painter_spec(tmp_path) == Scenes(scenes=tmp_path)
    spec = Repaint(painter="sdxl-turbo", settings=["t2i"], overrides={"t2i": {"steps": 2}, "batch_size": 8})
    made = spec.painter_spec(None)
    assert isinstance(made, Diffusion) and made.config.settings == ("t2i",) and made.config.batch_size == 8
    assert made.config.t2i is not None and made.config.t2i.steps == 2 and made.config.t2i.guidance == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"painter": "sdxxl"}, "no painter"),
        ({"overrides": {"t2i": {"steps": 2}}}, "the scene painter has no t2i"),
        ({"painter": "sdxl", "overrides": {"i2i": {"strength": 0.01}}}, "not one step would be run"),
        ({"painter": "sdxl", "overrides": {"colour": "red"}}, "colour"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Repaint(**given)


def test_a_recipe_paints_with_a_diffusion_model(small_world: Path, tmp_path: Path, tiny_sdxl_folder: Path) -> None:
    pytest.importorskip("diffusers")
    config = tiny_config(tiny_sdxl_folder).model_dump(mode="json", exclude_none=True)
    overrides = {k: config[k] for k in ("model", "size", "t2i", "i2i", "inpaint", "device", "dtype", "offline")}
    recipe = recipe_of(small_world, tmp_path / "out", painter="sdxl", overrides=overrides, settings=["i2i"], limit=2)
    summaries = question_sources(recipe, tmp_path / "out", Steps(tmp_path / "out", Console(quiet=True)))
    assert summaries["mine"]["repaint"]["by_truth"] == {"intended": 2}
    assert all(t.origin == "repaint:i2i" for t in read_triplets(tmp_path / "out" / "data" / "mine" / "triplets"))


def test_a_recipe_stopped_while_it_paints_goes_on(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(small_world, tmp_path / "out", settings=["t2i"], limit=40)
    one = {"workers": 1}
    monkeypatch.setattr("vsre.recipes.data_sets.repaint", lambda *given, **more: repaint(*given, **(more | one)))
    paint, painted = ShardPainter.paint, []

    def stopped(self: ShardPainter, number: int, **more: Any) -> Any:
        if number == 1 and 1 not in painted:
            painted.append(1)
            raise KeyboardInterrupt
        painted.append(number)
        return paint(self, number, **more)

    monkeypatch.setattr(ShardPainter, "paint", stopped)
    steps = Steps(tmp_path / "out", Console(quiet=True))
    with pytest.raises(KeyboardInterrupt):
        question_sources(recipe, tmp_path / "out", steps)
    assert shards.is_done(tmp_path / "out" / "data" / "mine" / "triplets", 0)
    question_sources(recipe, tmp_path / "out", steps)
    assert painted.count(0) == 1, "what was painted is not painted again"


def test_a_recipe_keeps_what_its_verifier_bears_out(small_world: Path, tmp_path: Path) -> None:
    recipe = recipe_of(small_world, tmp_path / "out", verifier="scene-truth", settings=["t2i"], limit=3)
    summaries = question_sources(recipe, tmp_path / "out", Steps(tmp_path / "out", Console(quiet=True)))
    assert summaries["mine"]["repaint"]["by_truth"] == {"verified": 3}
    assert summaries["mine"]["repaint"]["verifier"] == "scene-truth/1"
