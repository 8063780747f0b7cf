"""Recipes: the shipped ones hold together, and a mistake in one is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vsre.errors import VsreError
from vsre.recipes import load_recipe, recipe_names, recipe_text
from vsre.recipes.run import Steps, folder_name
from vsre.recipes.schema import Recipe
from vsre.rewrite import load_pack


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for data in recipe.data.values():
        if data.pack is not None:
            load_pack(data.pack)
    for pack in recipe.diagnose.packs:
        load_pack(pack)
    for model in recipe.models:
        used = {source for stage in model.stages for source in stage["data"]}
        assert used <= recipe.data.keys()


def test_the_demo_keeps_its_promises() -> None:
    demo = load_recipe("demo")
    assert demo.protocol == "clean"
    assert demo.models[0].role == "base" and demo.models[-1].role == "expert"
    live, shipped = demo.models[-2:]
    assert live.stages and live.start.checkpoint == "zoo:merged", "what is trained live is a row of its own"
    assert not shipped.stages and shipped.start.checkpoint == "zoo:vsre"
    assert demo.diagnose.limit is None


def test_the_ladder_adds_one_thing_a_rung() -> None:
    ladder = load_recipe("ladder")
    stages = {m.name: [s["data"][0] for s in m.stages] for m in ladder.models}
    starts = {m.name: m.start.model or m.start.checkpoint for m in ladder.models}
    assert stages == {
        "base VLM": [],
        "+ turn-s": ["turn-s"],
        "+ turn-g": ["turn-g"],
        "+ repaint": ["pre", "turn-g"],
        "+ four encoders (VSRE)": ["turn-s", "pre", "turn-g"],
        "+ repaint, longer": ["turn-s"],
        "four encoders, longer": ["turn-s"],
    }
    assert list(starts.values())[:5] == ["zoo:base", "zoo:base", "+ turn-s", "+ turn-s", "zoo:merged"]
    assert [starts[m.name] for m in ladder.models[5:]] == ["+ repaint", "+ four encoders (VSRE)"]
    assert len({str(m.stages[-1]) for m in ladder.models[2:5]}) == 1, "the last stage is the same on every rung"
    assert ladder.models[1].stages[0] == ladder.models[4].stages[0], "and so is the first"
    assert ladder.models[5].stages == ladder.models[6].stages, "merging is judged again after equally many more steps"
    assert "+ repaint, longer" in ladder.models[6].against


def changed(tmp_path: Path, change: object) -> Path:
    raw = yaml.safe_load(recipe_text("smoke")[0])
    change(raw)  # type: ignore[operator]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(protocoll="clean"), "protocoll"),
        (lambda r: r.update(protocol="dirty"), "dirty"),
        (lambda r: r["models"][0].update(against=["nobody"]), "nobody"),
        (lambda r: r["models"][1]["stages"][0].update(data=["turn-z"]), "turn-z"),
        (lambda r: r["models"][1]["stages"][0].update(max_stepps=3), "max_steps"),
        (lambda r: r["models"][1].update(name="VSRE"), "same name"),
        (lambda r: r["models"][0]["start"].update(llm="x"), "either `checkpoint`"),
        (lambda r: r["models"][2]["start"].update(encoders=[]), "needs `encoders`"),
        (lambda r: r["models"][1].update(start={"model": "VSRE"}), "no model before it"),
        (lambda r: r["data"]["turn-s"].update(general={"pictures": 3}), "either `pack`"),
        (lambda r: r["source"].update(kind="coco"), "source"),
        (lambda r: r.pop("data"), "data"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: object, says: str) -> None:
    with pytest.raises(VsreError, match=says) as error:
        load_recipe(str(changed(tmp_path, change)))
    assert "mine.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "just words"])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(VsreError, match=r"odd\.yaml"):
        load_recipe(str(path))


def test_unknown_names_list_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="demo"):
        load_recipe("demmo")
    with pytest.raises(VsreError, match="no such recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_a_recipe_round_trips() -> None:
    recipe = load_recipe("demo")
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_steps_run_once_and_refuse_other_settings(tmp_path: Path) -> None:
    from rich.console import Console

    steps, calls = Steps(tmp_path, Console(quiet=True)), []

    def make() -> dict[str, int]:
        calls.append(1)
        (tmp_path / "a").mkdir(parents=True, exist_ok=True)
        return {"rows": 3}

    for _ in range(2):
        assert steps.once(tmp_path / "a", {"seed": 0}, make, "make a") == {"rows": 3}
    assert len(calls) == 1
    with pytest.raises(VsreError, match="other settings"):
        steps.once(tmp_path / "a", {"seed": 1}, make, "make a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "half").write_text("left by a kill")
    steps.once(tmp_path / "b", {}, lambda: {}, "make b")
    assert not (tmp_path / "b" / "half").exists(), "what a killed step left is not mixed with a new one"


def test_folder_names_are_plain() -> None:
    assert folder_name("base + turn-s") == "base-turn-s"
    assert folder_name("+ four encoders (VSRE)") == "four-encoders-vsre"
