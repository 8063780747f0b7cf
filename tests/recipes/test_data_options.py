"""Which triplets a recipe's question sources ask about: every option for itself, and all together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from vsre.errors import VsreError
from vsre.recipes import Recipe, run_recipe
from vsre.recipes.data_sets import question_sources
from vsre.recipes.facts import data_rows
from vsre.recipes.schema import DataSpec
from vsre.recipes.steps import Steps
from vsre.recipes.training import data_folders
from vsre.recipes.validate import check
from vsre.recipes.workload import Counts, data_counts, question_lengths
from vsre.repaint import repaint
from vsre.rewrite import read_questions
from vsre.sources.protocols import HeldOut
from vsre.sources.scenes import World, write_world
from vsre.sources.vsr import import_vsr
from vsre.triplets import read_triplets

QUIET = Console(quiet=True)
ALL = {
    "scenes": {"units": 6},
    "without": ["left of", "near"],
    "limit": 40,
    "algebra": ["inverse", "swapped", "opposite", "mirrored"],
    "templates": 4,
    "per_triplet": 2,
    "pack": "pool",
}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts processes by itself takes longer to start them than to draw so few scenes."""
    for function in (repaint, write_world):

        def alone(*given: Any, function: Any = function, **more: Any) -> Any:
            return function(*given, **(more | {"workers": 1}))

        monkeypatch.setattr(f"vsre.recipes.data_sets.{function.__name__}", alone)


def recipe(data: dict[str, Any], **more: Any) -> Recipe:
    usual: dict[str, Any] = {
        "name": "mine",
        "title": "Mine",
        "source": {"kind": "scenes", "train_units": 8, "test_units": 6, "size": 64},
        "data": data,
        "models": [],
    }
    return Recipe.model_validate(usual | more)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT/triplets and OUT/world as a recipe's first steps make them."""
    out = tmp_path_factory.mktemp("source")
    write_world(out / "world", train_units=8, dev_units=0, test_units=6, seed=0, size=64)
    annotations = out / "world" / "annotations" / "caption-disjoint"
    import_vsr(
        {split: [annotations / f"{split}.jsonl"] for split in ("train", "test")},
        out / "triplets",
        images=[out / "world" / "images"],
        instances=[out / "world" / "instances.json"],
        origin="scenes",
    )
    return out


def out_with(source: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for part in ("world", "triplets"):
        (folder / part).symlink_to(source / part)
    return folder


def made(source: Path, out: Path, **data: Any) -> tuple[dict[str, Any], Path, Path]:
    """The summary of a recipe's only question source, and where its triplets and questions are."""
    mine = recipe({"mine": data})
    summary = question_sources(mine, out_with(source, out), Steps(out, QUIET))["mine"]
    found = data_folders(mine, out)["mine"]
    return summary, Path(found.triplets), Path(found.questions)


def test_without_options_nothing_is_new(source: Path, tmp_path: Path) -> None:
    """The very folders and settings of recipes as they were before there were options."""
    summary, triplets, questions = made(source, tmp_path / "out", pack="test-s")
    assert triplets == tmp_path / "out" / "triplets" / "train" and [*summary] == ["rewrite"]
    assert [p.name for p in (tmp_path / "out" / "data" / "mine").iterdir()] == ["questions"]
    step = json.loads((questions / "step.json").read_text())
    assert step["settings"] == {"pack": "test-s", "per_triplet": None, "seed": 0}
    assert "triplets are" not in data_rows({"mine": summary})[0]
    painted = recipe({"pre": {"repaint": {"settings": ["t2i"], "limit": 2}, "pack": "stage1"}})
    out = out_with(source, tmp_path / "painted")
    question_sources(painted, out, Steps(out, QUIET))
    settings = json.loads((out / "data" / "pre" / "repaint" / "step.json").read_text())["settings"]
    assert settings == {**json.loads(painted.data["pre"].repaint.model_dump_json()), "seed": 0}  # type: ignore[union-attr]
    assert sorted(p.name for p in (out / "data" / "pre").iterdir()) == ["questions", "repaint", "triplets"]


def test_all_options_together(source: Path, tmp_path: Path) -> None:
    summary, triplets, questions = made(source, tmp_path / "out", **ALL)
    assert [*summary] == ["drawn", "subset", "derived", "rewrite"] and triplets.name == "derived"
    rows = {t.key: t for t in read_triplets(triplets)}
    originals = [t for t in rows.values() if not t.origin.startswith("derived:")]
    assert len(originals) == 40 < len(rows) and {t.origin for t in originals} == {"scenes"}
    assert not {t.relation for t in rows.values()} & {"left of", "near"}, "not by way of the algebra either"
    assert sum(each.get("left out", 0) for each in summary["derived"]["derived"].values()) > 0, "they would have come"
    asked = [*read_questions(questions)]
    assert {q.key for q in asked} == rows.keys() and len(asked) == 2 * len(rows)
    assert len({q.template for q in asked}) == 4 == len(summary["rewrite"]["templates"])
    (told,) = data_rows({"mine": summary})
    assert told["triplets are"].startswith("12 scenes of its own; 40 of ") and "without" in told["triplets are"]


def test_all_options_and_a_repaint(source: Path, tmp_path: Path) -> None:
    """The scene painter finds the scenes drawn for the data set; mirrored pictures are approached from their boxes."""
    summary, triplets, _ = made(source, tmp_path / "out", **ALL, repaint={"settings": ["i2i", "t2i"], "limit": 24})
    assert [*summary] == ["drawn", "subset", "derived", "repaint", "rewrite"] and triplets.name == "triplets"
    rows = [*read_triplets(triplets)]
    assert rows and {t.origin for t in rows} == {"repaint:i2i", "repaint:t2i"}
    assert not {t.relation for t in rows} & {"left of", "near"}
    layouts = {(t.provenance["layout"]) for t in rows if t.origin == "repaint:i2i"}
    assert layouts == {"scene", "boxes"}
    plan = json.loads((triplets / "plan" / "plan.json").read_text())
    assert [name for name, _ in plan["held_out"]["folders"]] == ["test"], "though it does not stand beside them"


def test_own_scenes_are_no_scenes_of_the_recipe(source: Path, tmp_path: Path) -> None:
    _, triplets, _ = made(source, tmp_path / "out", pack="test-s", scenes={"units": 9})
    own = [*read_triplets(triplets, images=False)]
    world = [*read_triplets(source / "triplets", images=False)]
    assert not {t.image_id for t in own} & {t.image_id for t in world}
    test = HeldOut(t for t in world if t.split == "test")
    assert not any({"test row", "test image"} & {*test.found(t)} for t in own)
    assert all(World("caption-disjoint", "train").speaks_of(t.subject, t.object) for t in own), "the train split's"
    assert {t.split for t in own} == {"train"}
    _, fewer, _ = made(source, tmp_path / "fewer", pack="test-s", scenes={"units": 4})
    assert {t.key for t in read_triplets(fewer)} < {t.key for t in own}, "fewer scenes are part of more"


def test_the_protocol_holds_for_own_scenes(source: Path, tmp_path: Path) -> None:
    """A concept of the test is not trained on by way of scenes drawn beside it."""
    mine = recipe({"mine": {"pack": "test-s", "scenes": {"units": 9}}}, protocol="clean-concepts")
    out = out_with(source, tmp_path / "out")
    test = HeldOut(read_triplets(source / "triplets" / "test", images=False))
    summary = question_sources(mine, out, Steps(out, QUIET))["mine"]
    rows = [*read_triplets(out / "data" / "mine" / "drawn", images=False)]
    assert rows and not {name for t in rows for name in (t.subject, t.object)} & test.concepts
    assert summary["drawn"]["removed"]["test concept"] > 0


def test_own_scenes_are_as_crowded_as_the_sources(source: Path, tmp_path: Path) -> None:
    world = {"kind": "scenes", "train_units": 8, "test_units": 6, "size": 64, "objects": {"train": [5, 5]}}
    mine = recipe({"mine": {"pack": "test-s", "scenes": {"units": 3}}}, source=world)
    out = out_with(source, tmp_path / "out")
    question_sources(mine, out, Steps(out, QUIET))
    scenes = (out / "data" / "mine" / "drawn" / "world" / "scenes.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["objects"]) for line in scenes] == [5] * 6


def test_limits_are_nested_beside_other_options(source: Path, tmp_path: Path) -> None:
    keys = []
    for limit in (20, 45):
        _, triplets, _ = made(source, tmp_path / str(limit), pack="test-s", limit=limit, without=["on"])
        keys.append({t.key for t in read_triplets(triplets)})
    assert [len(k) for k in keys] == [20, 45] and keys[0] < keys[1]


def test_a_run_that_was_killed_goes_on_and_other_options_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"pack": "test-s", "limit": 20, "algebra": ["inverse"]}
    out = out_with(source, tmp_path / "out")
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("vsre.recipes.data_sets.derive", killed)
        with pytest.raises(KeyboardInterrupt):
            question_sources(recipe({"mine": given}), out, Steps(out, QUIET))
    first = (out / "data" / "mine" / "subset" / "part-00000.parquet").stat().st_mtime_ns
    question_sources(recipe({"mine": given}), out, Steps(out, QUIET))
    assert (out / "data" / "mine" / "subset" / "part-00000.parquet").stat().st_mtime_ns == first
    for other in (
        {"limit": 21},
        {"algebra": ["opposite"]},
        {"limit": None, "algebra": []},
        {"without": ["on"]},
        {"templates": 1},
    ):
        with pytest.raises(VsreError, match="made with other settings"):
            question_sources(recipe({"mine": given | other}), out, Steps(out, QUIET))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"without": ["lef of"]}, "Did you mean 'left of'"),
        ({"without": [True]}, 'write "on" in quotes: without them YAML takes it for true'),
        ({"without": ["near", False]}, 'write "off" in quotes'),
        ({"without": "on"}, "list"),
        ({"limit": 0}, "limit"),
        ({"algebra": ["inverted"]}, "inverse"),
        ({"templates": 2, "per_triplet": 3}, "more than the 2 `templates`"),
        ({"scenes": {"units": 0}}, "units"),
        ({"scenes": {"count": 3}}, "count"),
        ({"pack": None, "general": {"pictures": 3}, "limit": 3, "templates": 2}, "no `limit`, no `templates`"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DataSpec.model_validate({"pack": "pool"} | given)


def test_more_templates_than_the_pack_has() -> None:
    found = check(recipe({"mine": {"pack": "stage1", "templates": 40}}), online=False)
    assert any("data mine: templates 40 is more than the" in fault for fault in found.faults)


def test_what_is_reckoned() -> None:
    rows = Counts(100, 400, {"left of": 100, "near": 200, "across": 100})

    def counts(**options: Any) -> tuple[int, int]:
        found = data_counts(DataSpec(pack="pool", per_triplet=1, **options), rows)
        assert found is not None
        return found.pictures, found.questions

    assert counts() == (100, 400)
    assert counts(without=["near"]) == (100, 200)
    assert counts(limit=100) == (25, 100)
    assert counts(algebra=["mirrored"]) == (200, 800)
    assert counts(algebra=["inverse"]) == (100, 400 + 100 + 200)
    assert counts(algebra=["opposite"]) == (100, 400 + 50 + 100), "every second one is true"
    assert counts(without=["near"], limit=100, algebra=["inverse", "mirrored"]) == (100, 100 + 50 + 100)
    assert data_counts(DataSpec(pack="pool", templates=7), rows) == Counts(100, 2800)
    drawn = data_counts(DataSpec(pack="test-s", scenes={"units": 100}), None)  # type: ignore[arg-type]
    assert drawn is not None and drawn.pictures == 200 and 1900 < drawn.questions < 2300
    short, whole = question_lengths(DataSpec(pack="pool", templates=1)), question_lengths(DataSpec(pack="pool"))
    assert short.longest < whole.longest and short.mean == short.longest


@pytest.mark.slow
def test_a_recipe_with_all_options_runs(tmp_path: Path) -> None:
    stage = {"name": "tune", "train": ["adapters"], "data": ["all"], "lr": 1e-3, "batch_images": 4, "max_steps": 2}
    mine = recipe(
        {"all": ALL},
        models=[{"name": "m", "start": {"checkpoint": "zoo:base"}, "stages": [stage]}],
        diagnose={"packs": ["test-s"], "limit": 4},
    )
    result = run_recipe(mine, tmp_path / "out", console=QUIET)
    assert "12 scenes of its own" in Path(result["report"]).read_text()
    assert run_recipe(mine, tmp_path / "out", console=QUIET)["results"] == result["results"]
