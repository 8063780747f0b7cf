"""Recipes as data: what one extends, its named stages and grids, and every mistake named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.recipes import Recipe, RecipeFaults, load_recipe, recipe_names
from vsre.recipes.expand import merge
from vsre.recipes.files import as_yaml
from vsre.recipes.published import published_figures

Tree = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


def written(folder: Path, file: str, /, **content: Any) -> str:
    path = folder / f"{file}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


BASE: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "sources": ["a paper"],
    "source": {"kind": "scenes", "train_units": 4, "test_units": 2},
    "data": {"one": {"pack": "test-s"}, "two": {"pack": "pool"}},
    "stages": {
        "align": {"train": ["adapters"], "lr": 1e-3},
        "tune": {"train": ["adapters", "llm"], "lr": 2e-5, "bf16": True},
    },
    "models": [{"name": "plain", "start": {"checkpoint": "zoo:base"}}],
    "grid": [
        {
            "size": [
                {"name": "small", "start": {"checkpoint": "zoo:base"}, "note": "s"},
                {"name": "large", "start": {"checkpoint": "zoo:vsre"}, "each_stage": {"lr": 5.0, "warmup": 0.5}},
            ],
            "data": [
                {"name": "first", "note": "f", "stages": [{"use": "align", "data": ["one"]}]},
                {
                    "name": "both",
                    "stages": [{"use": "align", "data": ["one"], "lr": 7.0}, {"use": "tune", "data": ["two"]}],
                },
            ],
        }
    ],
}


def test_a_grid_is_every_combination_in_order(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "a", **BASE))
    assert [m.name for m in recipe.models] == ["plain", "small, first", "small, both", "large, first", "large, both"]
    assert [m.start.checkpoint for m in recipe.models[1:]] == ["zoo:base"] * 2 + ["zoo:vsre"] * 2
    assert [m.note for m in recipe.models[1:]] == ["s; f", "s", "f", ""]


def test_a_stage_outdoes_the_model_which_outdoes_the_named_one(tmp_path: Path) -> None:
    models = load_recipe(written(tmp_path, "a", **BASE)).models
    small, large = models[2].parsed_stages(), models[4].parsed_stages()
    assert [(s.name, s.lr, s.warmup, s.bf16) for s in small] == [
        ("align", 7.0, 0.03, False),
        ("tune", 2e-5, 0.03, True),
    ]
    assert [(s.lr, s.warmup) for s in large] == [(7.0, 0.5), (5.0, 0.5)]


def test_what_extends_lies_over_what_it_extends(tmp_path: Path) -> None:
    written(tmp_path, "base", **BASE)
    path = written(
        tmp_path,
        "mine",
        extends="base.yaml",
        name="other",
        sources=["mine"],
        source={"test_units": 9},
        stages={"tune": {"lr": 0.5}},
        models=[],
    )
    recipe = load_recipe(path)
    assert recipe.name == "other" and recipe.sources == ["a paper", "mine"]
    assert recipe.source.model_dump() | {"train_units": 4, "test_units": 9} == recipe.source.model_dump()
    assert [m.name for m in recipe.models] == ["small, first", "small, both", "large, first", "large, both"]
    tune = recipe.models[1].parsed_stages()[1]
    assert (tune.lr, tune.bf16) == (0.5, True)


def test_inherited_data_that_no_model_uses_are_left_out(tmp_path: Path) -> None:
    written(tmp_path, "base", **BASE)
    assert set(load_recipe(str(tmp_path / "base.yaml")).data) == {"one", "two"}
    models = [{"name": "m", "start": {"checkpoint": "zoo:base"}, "stages": [{"use": "align", "data": ["one"]}]}]
    assert set(load_recipe(written(tmp_path, "mine", extends="base.yaml", grid=[], models=models)).data) == {"one"}


def test_own_models_do_without_the_inherited_grid_and_the_other_way_round(tmp_path: Path) -> None:
    written(tmp_path, "base", **BASE)
    models = [{"name": "m", "start": {"checkpoint": "zoo:base"}, "stages": [{"use": "align", "data": ["one"]}]}]
    mine = load_recipe(written(tmp_path, "mine", extends="base.yaml", models=models))
    assert [m.name for m in mine.models] == ["m"] and set(mine.data) == {"one"}
    grid = [{"set": [{"name": "g", "start": {"checkpoint": "zoo:base"}, "stages": [{"use": "tune", "data": ["two"]}]}]}]
    gridded = written(tmp_path, "gridded", extends="base.yaml", grid=grid)
    assert [m.name for m in load_recipe(gridded).models] == ["g"]
    below = load_recipe(written(tmp_path, "below", extends="gridded.yaml", seed=3))
    assert [m.name for m in below.models] == ["g"] and below.seed == 3, "what gives neither inherits both"
    both = written(tmp_path, "both", extends="base.yaml", models=models, grid=grid)
    assert [m.name for m in load_recipe(both).models] == ["m", "g"]


def test_what_is_of_another_kind_is_taken_whole(tmp_path: Path) -> None:
    base = {"source": {"kind": "vsr", "train": ["a"], "test": ["b"], "images": ["c"]}, "models": []}
    written(tmp_path, "base", **{**BASE, **base})
    scenes = {"kind": "scenes", "train_units": 10, "test_units": 5}
    mine = load_recipe(written(tmp_path, "mine", extends="base.yaml", source=scenes))
    assert mine.source.kind == "scenes" and mine.source.train_units == 10
    assert load_recipe(written(tmp_path, "x", extends="base.yaml", source={"kind": "vsr", "test": ["d"]})).source.train


@pytest.mark.parametrize(
    ("below", "above", "start"),
    [
        ({"llm": "l", "encoders": ["clip"]}, {"checkpoint": "c"}, {"checkpoint": "c"}),
        ({"checkpoint": "c", "encoders": ["clip"]}, {"use": "merged"}, {"use": "merged"}),
        ({"llm": "l", "encoders": ["clip"]}, {"llm": "m"}, {"llm": "m", "encoders": ["clip"]}),
        ({"use": "a", "fusion": "channel"}, {"llm": "l"}, {"use": "a", "fusion": "channel", "llm": "l"}),
        ({"llm": "l", "fusion": {"kind": "interleave", "by": "row"}}, {"fusion": {"kind": "channel", "grid": 3}}, None),
    ],
)
def test_a_start_that_begins_otherwise_is_taken_whole(below: Any, above: Any, start: Any) -> None:
    start = start or {"llm": "l", "fusion": {"kind": "channel", "grid": 3}}
    assert merge({"start": below}, {"start": above}) == {"start": start}
    assert merge({"starts": {"merged": below}}, {"starts": {"merged": above}}) == {"starts": {"merged": start}}


def test_own_data_that_no_model_uses_are_looked_at(tmp_path: Path) -> None:
    written(tmp_path, "base", **BASE)
    mine = written(tmp_path, "mine", extends="base.yaml", data={"extra": {"pack": "pool"}})
    assert set(load_recipe(mine).data) == {"one", "two", "extra"}
    wrong = written(tmp_path, "wrong", extends="base.yaml", data={"extra": {"pack": "pool", "per_trplet": 3}})
    with pytest.raises(RecipeFaults, match="Did you mean 'per_triplet'"):
        load_recipe(wrong)


def test_a_circle_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "a", extends="b.yaml")
    with pytest.raises(VsreError, match="extends this recipe"):
        load_recipe(written(tmp_path, "b", extends="a.yaml"))


@given(Tree, Tree)
def test_merging_keeps_what_is_not_said_and_takes_what_is(below: Any, above: Any) -> None:
    merged = merge(below, above)
    if not (isinstance(below, dict) and isinstance(above, dict)):
        assert merged == above
        return
    assert merged.keys() == below.keys() | above.keys()
    for key in merged:
        if key not in above:
            assert merged[key] == below[key]
        elif key not in below:
            assert merged[key] == above[key]
        else:
            assert merged[key] == merge(below[key], above[key])


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    raw: dict[str, Any] = yaml.safe_load(yaml.safe_dump(BASE))
    raw["protocoll"] = "clean"
    raw["protocol"] = "cleann"
    raw["source"]["train_unit"] = 3
    raw["models"] += [
        {"name": "a", "start": {"checkpoint": "zoo:base"}, "stages": [{"use": "alignn", "data": ["one"]}]},
        {"name": "b", "start": {"chekpoint": "zoo:base"}},
        {"name": "c", "start": {"model": "plan"}, "stages": [{"use": "tune", "data": ["onee"], "warmupp": 0}]},
        {"name": "d", "start": {"use": ["merged"], "checkpoint": "zoo:base"}, "stages": [{"use": [], "data": ["one"]}]},
    ]
    with pytest.raises(RecipeFaults) as caught:
        load_recipe(written(tmp_path, "wrong", **raw))
    said = caught.value.faults
    for meant in ("'protocol'", "'clean'", "'train_units'", "'align'", "'checkpoint'", "'plain'", "'one'", "'warmup'"):
        assert any(f"Did you mean {meant}?" in fault for fault in said), (meant, said)
    assert any("d: starts as \"['merged']\", not in `starts`." in fault for fault in said), said
    assert any("d: a stage uses '[]', which `stages` does not have." in fault for fault in said), said
    assert len(said) == 10
    assert all(f"\n  - {fault}" in str(caught.value) for fault in said)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"grid": {"size": []}}, "grid: expected a list"),
        ({"grid": [["a"]]}, "grid 1: expected a mapping"),
        ({"grid": [{"size": {"name": "x"}}]}, "grid 1, size: expected a list"),
        ({"stages": ["align"]}, "stages: expected a mapping"),
        ({"extends": ["a", "b"]}, "extends: expected the name or path of one recipe"),
        ({"models": {"name": "x"}}, "models: expected a list"),
    ],
)
def test_parts_of_the_wrong_kind_are_named(tmp_path: Path, content: dict[str, Any], says: str) -> None:
    with pytest.raises(VsreError, match=says):
        load_recipe(written(tmp_path, "wrong", **{**BASE, **content}))


@pytest.mark.parametrize("name", ["table-1", "vlm", "ladder"])
def test_a_row_written_out_is_the_same_row(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).rows(["3", "4"])
    path = tmp_path / "row.yaml"
    path.write_text(as_yaml(recipe))
    again = load_recipe(str(path))
    assert [m.parsed_stages() for m in again.models] == [m.parsed_stages() for m in recipe.models]
    plain = [m.model_copy(update={"stages": []}) for m in recipe.models]
    assert again.model_copy(update={"models": [m.model_copy(update={"stages": []}) for m in again.models]}) == (
        recipe.model_copy(update={"models": plain})
    )


def test_a_row_brings_what_it_starts_from_and_no_more() -> None:
    ladder = load_recipe("ladder")
    rows = ladder.rows(["+ repaint, longer"])
    assert [m.name for m in rows.models] == ["+ turn-s", "+ repaint", "+ repaint, longer"]
    assert rows.models[2].against == ["+ repaint"], "the base is not there"
    assert set(rows.data) == {"turn-s", "turn-g", "pre", "general-s", "general-g"}
    assert ladder.rows(["1"]).data == {}
    with pytest.raises(VsreError, match=r"has 7 rows.*Did you mean '\+ repaint'"):
        ladder.rows(["+ repain"])
    with pytest.raises(VsreError, match="none is '8'"):
        ladder.rows(["8"])


def test_the_protocol_can_be_chosen() -> None:
    assert load_recipe("table-1").protocol == "clean"
    assert load_recipe("table-1", protocol="paper").protocol == "paper"
    with pytest.raises(RecipeFaults, match="Did you mean 'clean'"):
        load_recipe("table-1", protocol="cleen")


def stages(recipe: Recipe) -> list[list[tuple[str, str]]]:
    return [[(s["data"][0], " ".join(s["train"])) for s in m.stages] for m in recipe.models]


def test_table_1_is_the_papers() -> None:
    recipe = load_recipe("table-1")
    tune, align = "adapters llm", "adapters"
    mixes = [
        [],
        [("turn-g-11k", align)],
        [("turn-s-11k", align)],
        [("turn-g-500k", tune)],
        *([(f"pre-{n}00k", align), ("turn-g-500k", tune)] for n in range(1, 6)),
        [("pre-400k", align), ("turn-g-500k", tune), ("turn-s-11k", tune)],
    ]
    assert stages(recipe) == mixes * 2 + [mixes[8 - 1], mixes[9]] * 2
    llava = recipe.models[:20]
    assert [m.start.checkpoint for m in llava] == ["llava-hf/llava-1.5-7b-hf"] * 10 + ["llava-hf/llava-1.5-13b-hf"] * 10
    for model in recipe.models:
        for stage in model.parsed_stages():
            wide = "llm" in stage.train
            assert (stage.lr, stage.batch_images * stage.questions_per_image) == ((2e-5, 128) if wide else (1e-3, 256))
            assert (stage.schedule, stage.warmup, stage.bf16, stage.weight_decay) == ("cosine", 0.03, True, 0.0)


def test_the_papers_figures_stand_beside_its_rows() -> None:
    figures = [published_figures(m.paper) for m in load_recipe("table-1").models]
    assert figures[0] == {"test_g": 54.3, "test_s": 65.3} and figures[10] == {"test_g": 57.7, "test_s": 68.4}
    assert figures[19] == {"test_g": 70.1, "test_s": 76.6} and figures[23] == {"test_g": 74.4, "test_s": 79.5}
    assert all(figures[:20]) and not any(figures[20:22])


@pytest.mark.parametrize("name", recipe_names())
def test_what_a_shipped_recipe_claims_to_stand_for_is_published(name: str) -> None:
    for model in load_recipe(name).models:
        assert model.paper is None or published_figures(model.paper), model.name


def test_the_document_prints_what_the_paper_does() -> None:
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    models = load_recipe("table-1").models
    seen = 0
    for row in (r for r in table if len(r) == 6 and r[0].isdigit()):
        for number, shown in ((row[0], row[4]), (row[1], row[5])):
            figures = published_figures(models[int(number) - 1].paper)
            assert shown == (f"{figures['test_g']} / {figures['test_s']}" if figures else "–"), row
            seen += 1
    assert seen == len(models)


def test_encoders_are_all_combinations() -> None:
    recipe = load_recipe("encoders")
    combinations = {frozenset(choice.id for choice in m.start.encoders) for m in recipe.models}
    assert len(combinations) == 15 and len(recipe.models) == 45
