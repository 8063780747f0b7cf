"""Recipes: the shipped ones hold together, and a mistake in one is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from vsre.errors import VsreError
from vsre.recipes import RecipeFaults, load_recipe, recipe_names, recipe_text, run_recipe
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
        (lambda r: r["models"][1].update(start={"model": "VSRE"}), "not an earlier model"),
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


def test_folder_names_are_plain() -> None:
    assert folder_name("base + turn-s") == "base-turn-s"
    assert folder_name("+ four encoders (VSRE)") == "four-encoders-vsre"
    assert folder_name("LLaVA-1.5 7B") == "llava-1.5-7b"
    assert [folder_name(name) for name in ("..", "+ ..", "./.", "空间", "")] == [""] * 5


@pytest.mark.parametrize("name", ["../x", "..", ".x", "/abs", "a/b", "a\\b", " ", ""])
def test_a_data_set_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    def change(raw: Any) -> None:
        raw["data"][name] = {"pack": "pool"}

    with pytest.raises(RecipeFaults, match=r"data: .* must work as a folder name") as error:
        load_recipe(str(changed(tmp_path, change)))
    assert len(error.value.faults) == 1 and repr(name) in error.value.faults[0]


def test_names_that_would_share_a_folder_are_named(tmp_path: Path) -> None:
    def change(raw: Any) -> None:
        raw["models"][0]["name"], raw["models"][1]["name"] = "+ clip", "Clip"
        raw["models"][2]["name"] = "空间"
        raw["models"][2]["against"] = []
        raw["data"] |= {"数据": {"pack": "pool"}, "甲": {"pack": "pool"}, "Pool": {"pack": "pool"}}
        raw["data"]["pool"] = raw["data"]["Pool"]

    with pytest.raises(RecipeFaults) as error:
        load_recipe(str(changed(tmp_path, change)))
    assert error.value.faults == [
        "models: '+ clip' and 'Clip' have the same folder, clip.",
        "models: '空间' has no letter or digit (a-z, 0-9) to name a folder by.",
        "data: 'Pool' and 'pool' have the same folder, pool.",
    ]


def test_a_row_that_is_called_by_a_number() -> None:
    raw = yaml.safe_load(recipe_text("smoke")[0])
    raw["models"] = [{"name": name, "start": {"checkpoint": "zoo:base"}} for name in ("2", "5", "last")]
    recipe = Recipe.model_validate(raw)
    names = [[m.name for m in recipe.rows(rows).models] for rows in (["2", "5"], ["1"], ["2"], ["3"])]
    assert names == [["2", "5"], ["2"], ["2"], ["last"]]
    for row in ("0", "4", "²"):
        with pytest.raises(VsreError, match=f"none is '{row}'"):
            recipe.rows([row])


def test_results_are_written_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has the file open, as by a second link, keeps the old one whole."""
    source = {"import": {"splits": {}, "set_aside": {"reasons": {}}}}
    monkeypatch.setattr("vsre.recipes.run.make_data", lambda *_: (source, {}))
    monkeypatch.setattr("vsre.recipes.run.write_report", lambda path, *_: path)
    (tmp_path / "old").write_text("old")
    (tmp_path / "results.json").hardlink_to(tmp_path / "old")
    raw = yaml.safe_load(recipe_text("smoke")[0]) | {"models": [], "data": {}}
    run_recipe(Recipe.model_validate(raw), tmp_path, console=Console(quiet=True))
    assert json.loads((tmp_path / "results.json").read_text())["recipe"] == "smoke"
    assert (tmp_path / "old").read_text() == "old"
