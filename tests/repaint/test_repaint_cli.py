import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.sources.vsr import import_vsr
from vsre.triplets import read_triplets

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason='needs diffusers: pip install "vsre[diffusion]"'
)


def vsre(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["repaint", *map(str, arguments)])
    if isinstance(result.exception, VsreError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_verb_without_a_word_paints(small_world: Path, tmp_path: Path) -> None:
    train, scenes = small_world / "triplets" / "train", small_world / "scenes.jsonl"
    for arguments in ([train, tmp_path / "a"], ["run", train, tmp_path / "b"]):
        vsre(*arguments, "--scenes", scenes, "--limit", 4, "--workers", 1, "--json", tmp_path / "out.json")
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["by_truth"] == {"drawn": summary["images"]} and summary["held_out"]["from"] == ["test"]
    assert (tmp_path / "a" / "repaint.json").read_text() == (tmp_path / "b" / "repaint.json").read_text()


def test_the_verb_is_plan_work_and_finish(small_world: Path, tmp_path: Path) -> None:
    train, scenes = small_world / "triplets" / "train", small_world / "scenes.jsonl"
    asked = ("--scenes", scenes, "--limit", 4)
    shown = vsre("plan", train, tmp_path / "b", *asked, "--time", 2, "--json", tmp_path / "plan.json")
    assert "2 jobs timed here" in shown and "hours" in shown
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["jobs"] == 12 and plan["cost"]["jobs"] == 12 and not (tmp_path / "b" / "ledger").exists()
    for part in ("2/2", "1/2"):
        shown = vsre("work", tmp_path / "b", "--shard", part)
    with pytest.raises(VsreError, match="give I/N"):
        vsre("work", tmp_path / "b", "--shard", "1")
    vsre("finish", tmp_path / "b")
    vsre(train, tmp_path / "a", *asked, "--workers", 1)
    assert (tmp_path / "a" / "repaint.json").read_text() == (tmp_path / "b" / "repaint.json").read_text()
    with pytest.raises(VsreError, match="seed: 0 there, 1 now"):
        vsre(train, tmp_path / "a", *asked, "--seed", 1)
    for form in ("webdataset", "parquet"):
        vsre("export", tmp_path / "a", tmp_path / form, "--format", form)
        vsre("import", tmp_path / form, tmp_path / f"{form}-back", "--json", tmp_path / "back.json")
        back = json.loads((tmp_path / "back.json").read_text())
        assert back["set_aside"] == {} and back["rows"] == len(list(read_triplets(tmp_path / "a")))


def test_a_plan_that_holds_nothing_out_says_so(small_world: Path, tmp_path: Path) -> None:
    train = small_world / "triplets" / "train"
    alone = tmp_path / "alone" / "train"
    shutil.copytree(train, alone)
    asked = ("--limit", 4, "--setting", "t2i")
    assert "nothing is held out" in " ".join(vsre("plan", alone, tmp_path / "a", *asked).split())
    assert "nothing is held out" not in " ".join(vsre("plan", train, tmp_path / "b", *asked).split())


def test_a_sweep_of_scenes(small_world: Path, tmp_path: Path) -> None:
    shown = vsre("sweep", small_world / "triplets" / "train", tmp_path, "--painter", "scene", "--rows", 2)
    assert "100.0%" in shown and (tmp_path / "sweep.html").is_file() and (tmp_path / "sweep.png").is_file()


@needs_diffusers
def test_a_painter_of_ones_own(small_world: Path, tmp_path: Path, tiny_sdxl_folder: Path) -> None:
    mine = tmp_path / "mine.yaml"
    numbers = {"t2i": {"steps": 2}, "i2i": {"steps": 2}, "inpaint": {"steps": 2}}
    mine.write_text(
        yaml.safe_dump({"extends": "sdxl", "size": [64, 64], "dtype": "float32", "device": "cpu", **numbers})
    )
    train = small_world / "triplets" / "train"
    options = ("--painter", mine, "--model", tiny_sdxl_folder, "--offline", "--setting", "i2i")
    shown = vsre(train, tmp_path / "out", *options, "--strength", 1, "--limit", 2)
    assert "Verify them before anything is trained on them" in " ".join(shown.split())
    summary = json.loads((tmp_path / "out" / "repaint.json").read_text())
    assert summary["by_truth"] == {"intended": 2} and list(summary["painter"]) == ["name", "i2i"]
    assert summary["painter"]["i2i"]["strength"] == 1
    shown = vsre("sweep", train, tmp_path / "sweep", *options, "--rows", 1, "--guidance", 1, "--guidance", 5)
    assert "nothing is known of what the pictures show" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("T", "O", "--steps", 4), "--steps: the scene painter has no such numbers"),
        (("T", "O", "--painter", "sdxxl"), "no painter 'sdxxl'"),
        (("T", "O", "--painter", "sdxl", "--strength", 0.01), "not one step would be run"),
        (("T", "O", "--painter", "sdxl", "--setting", "x2i"), "x2i: the painter has t2i, i2i, inpaint"),
        (("sweep", "T", "O", "--setting", "x2i"), "none of t2i"),
        (("sweep", "T", "O", "--painter", "scene", "--painter", "sdxl"), "one at a time"),
        (("sweep", "T", "O", "--painter", "scene", "--guidance", 4), "--guidance"),
        (("masks", "T", "--dilation", 3), "--dilation 3.0"),
        (("presets", "sdxxl"), "no painter"),
        (("work", "O"), "no plan in there"),
        (("finish", "O"), "no plan in there"),
        (("export", "O", "D"), "no finished repaint"),
    ],
)
def test_mistakes_are_told(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(VsreError, match=message):
        vsre(*arguments)


def test_masks_are_counted(tmp_path: Path, small_world: Path) -> None:
    annotations = small_world / "annotations" / "caption-disjoint" / "train.jsonl"
    import_vsr(
        {"train": [annotations]},
        tmp_path / "out",
        images=[small_world / "images"],
        instances=[small_world / "instances.json"],
    )
    vsre("masks", tmp_path / "out" / "train", "--json", tmp_path / "masks.json")
    counts = json.loads((tmp_path / "masks.json").read_text())
    assert counts["rows"] == counts["with_a_mask"] + sum(counts["set_aside"].values()) > 0
    assert counts["with_a_mask"] == sum(counts["usable"].values()) > 0


def test_presets_are_listed_and_shown(tmp_path: Path) -> None:
    assert "sdxl-turbo" in vsre("presets", "--json", tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text())["sdxl"]["inpaint"]["strength"] == 0.99
    assert "sources.inpaint.strength" in vsre("presets", "sdxl")
