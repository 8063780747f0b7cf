"""What a plan hangs on beside arguments and names: the verifier's policy, the file of scenes, the model's limits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from quick_painter import QuickPainter, said, write_source

from vsre.errors import VsreError
from vsre.repaint import ScenePainter, Vocabulary, repaint
from vsre.repaint.painter import PaintJob
from vsre.repaint.plan import survey
from vsre.repaint.plan_files import read_plan
from vsre.repaint.planning import make_plan
from vsre.repaint.presets import load_config
from vsre.repaint.run import shard_painter_of
from vsre.repaint.specs import Fallible, Scenes, VerifierSpec
from vsre.repaint.verify import Policy, SceneTruth
from vsre.triplets import read_triplets, write_triplets


class Relabels(SceneTruth):
    policy = Policy(on_fail="relabel")


def test_a_verifier_with_another_policy_makes_another_plan(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 6)
    drops, _ = make_plan(source, tmp_path / "out", QuickPainter, verifier=SceneTruth())
    assert drops.head.policy == Policy() and read_plan(tmp_path / "out").head == drops.head
    with pytest.raises(VsreError, match=r"policy.on_fail: 'drop' there, 'relabel' now"):
        make_plan(source, tmp_path / "out", QuickPainter, verifier=Relabels())
    relabels, _ = make_plan(source, tmp_path / "other", QuickPainter, verifier=Relabels())
    assert relabels.head.verifier == drops.head.verifier and relabels.digest != drops.digest


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: scenes\npolicy: {on_fail: drop}\n")
    return file


def test_a_policy_changed_behind_the_plan_is_found(tmp_path: Path, policy_file: Path) -> None:
    source = write_source(tmp_path / "train", 6)
    verifier = VerifierSpec(verifier=str(policy_file))
    make_plan(source, tmp_path / "out", Scenes(), verifier=verifier)
    shard_painter_of(tmp_path / "out")
    policy_file.write_text("extends: scenes\npolicy: {on_fail: relabel}\n")
    with pytest.raises(VsreError, match=r"another policy.*on_fail: 'drop' there, 'relabel' now"):
        shard_painter_of(tmp_path / "out")
    with pytest.raises(VsreError, match="holds another plan"):
        make_plan(source, tmp_path / "out", Scenes(), verifier=verifier)


def without_policy(out: Path) -> None:
    """The plan as earlier versions wrote it."""
    path = out / "plan" / "plan.json"
    head = json.loads(path.read_text())
    del head["policy"]
    path.write_text(json.dumps(head))


def test_a_plan_that_does_not_say_its_policy_is_told(tmp_path: Path, policy_file: Path) -> None:
    source = write_source(tmp_path / "train", 6)
    verifier = VerifierSpec(verifier=str(policy_file))
    make_plan(source, tmp_path / "out", Scenes(), verifier=verifier)
    without_policy(tmp_path / "out")
    with pytest.raises(VsreError, match=r"earlier version.*Plan again in another folder"):
        shard_painter_of(tmp_path / "out")
    with pytest.raises(VsreError, match=r"earlier version.*choose another folder"):
        make_plan(source, tmp_path / "out", Scenes(), verifier=verifier)


def test_a_plan_without_a_verifier_goes_on_as_before(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 6)
    made, _ = make_plan(source, tmp_path / "out", Scenes())
    without_policy(tmp_path / "out")
    again, _ = make_plan(source, tmp_path / "out", Scenes())
    assert again.digest == made.digest and "policy" not in again.head.identity()


def test_other_scenes_make_another_plan_and_only_other_pictures(small_world: Path, tmp_path: Path) -> None:
    train = small_world / "triplets" / "train"
    file = tmp_path / "scenes.jsonl"
    shutil.copy(small_world / "scenes.jsonl", file)
    make_plan(train, tmp_path / "out", Scenes(scenes=file), settings=("i2i",))
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[0].replace('"image": "', '"image": "another-')]) + "\n")
    with pytest.raises(VsreError, match=r"parameters.i2i.scenes: .* there"):
        make_plan(train, tmp_path / "out", Scenes(scenes=file), settings=("i2i",))
    with pytest.raises(VsreError, match="Plan again in another folder"):
        shard_painter_of(tmp_path / "out")
    rows = list(read_triplets(train))[:3]
    words = Vocabulary(("cat", "dog"), frozenset(("left of",)))
    for make in (ScenePainter, lambda *given, **more: Fallible(faults=0.5, scenes=more["scenes"])(*given)):
        before, now = (make(words, scenes=path) for path in (small_world / "scenes.jsonl", file))
        for row in rows:
            jobs = [PaintJob(row, "i2i", 1, p.name, p.parameters_for("i2i")) for p in (before, now)]
            assert jobs[0].id != jobs[1].id
            one, two = before.paint(jobs[0]), now.paint(jobs[1])
            assert getattr(one, "image", one.job.triplet) == getattr(two, "image", two.job.triplet)


@pytest.mark.parametrize(
    "changes",
    [
        {"vae_tiling": True},
        {"relations": ["left of"]},
        {"classes": ["cat", "dog"]},
        {"variant": "other"},
        {"fp16_vae": {"model": "some/vae", "variant": "x"}},
        {"inpaint_unet": {"model": "some/unet", "subfolder": "x"}},
    ],
)
def test_what_changes_pictures_or_refusals_changes_jobs(changes: dict[str, Any]) -> None:
    pytest.importorskip("diffusers")
    from vsre.repaint.diffusion import DiffusionPainter

    words = Vocabulary(("cat", "dog", "car"), frozenset(("left of", "right of")))
    config = load_config("sdxl").changed(
        fp16_vae={"model": "some/vae"},
        **({"inpaint_unet": {"model": "some/unet"}} if "inpaint_unet" in changes else {}),
    )
    one, two = (DiffusionPainter(words, c) for c in (config, config.changed(**changes)))
    for setting in ("inpaint",) if "inpaint_unet" in changes else one.settings:
        assert one.parameters_for(setting) != two.parameters_for(setting), setting
    json.dumps(dict(two.parameters))


@pytest.mark.parametrize("given", [".", "../train", "../other/../train", "part-00000.parquet", "../train/."])
def test_neighbours_are_held_out_however_the_source_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    write_source(tmp_path / "train", 3)
    (tmp_path / "other").mkdir()
    write_triplets(tmp_path / "test", [said("x.jpg", "bus", split="test")])
    monkeypatch.chdir(tmp_path / "train")
    _, _, folders = survey(Path(given), allow_held_out=False)
    assert [folder.resolve() for folder in folders] == [tmp_path.resolve() / "test"]


def test_the_same_data_repainted_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path / "train", 3)
    write_triplets(tmp_path / "dev", [said("x.jpg", "bus", split="dev")])
    monkeypatch.chdir(tmp_path / "train")
    assert repaint(".", tmp_path / "out", settings=("t2i",))["held_out"]["from"] == ["dev"]
