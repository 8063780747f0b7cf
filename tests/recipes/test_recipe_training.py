"""The training step of a recipe: where a model begins and ends, any image-text model, and processes of a launcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

from tiny_families_tiles import tiny_idefics3
from vsre.errors import VsreError
from vsre.recipes import Recipe, load_recipe, run_recipe
from vsre.recipes.facts import model_rows
from vsre.recipes.training import alone_at_training, begins_with, data_folders, ends_with, processes_of
from vsre.train.launch import CONFIGS

QUIET = Console(quiet=True)


def recipe(models: list[dict[str, Any]], **more: Any) -> Recipe:
    usual: dict[str, Any] = {
        "name": "any",
        "title": "Any model",
        "source": {"kind": "scenes", "train_units": 6, "test_units": 4, "size": 96},
        "data": {"asked": {"pack": "stage1", "per_triplet": 1}},
        "models": models,
        "diagnose": {"packs": ["test-s"], "limit": 6},
    }
    return Recipe.model_validate(usual | more)


def stage(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "train": ["llm"], "data": ["asked"], "lr": 1e-3, "batch_images": 4, "max_steps": 2, **more}


def test_the_report_tells_the_encoders_that_a_model_keeps() -> None:
    merged = {"checkpoint": "zoo:merged"}
    some = [{"name": "two", "start": {**merged, "encoders": ["sam", "clip"]}}, {"name": "all", "start": merged}]
    two, four = model_rows(recipe(some), Path("out"))
    assert [entry.split()[0] for entry in two["encoders"].split(", ")] == ["clip", "sam"]
    assert len(four["encoders"].split(", ")) == 4 and two["visual tokens"] == four["visual tokens"] / 2


def test_a_model_begins_where_the_one_before_it_ends() -> None:
    chained = recipe(
        [
            {"name": "as it is", "start": {"vlm": "zoo:base"}},
            {"name": "+ one", "start": {"model": "as it is"}, "stages": [stage("a"), stage("b")]},
            {"name": "+ two", "start": {"model": "+ one"}, "stages": [stage("c")]},
            {"name": "fresh", "start": {"llm": "zoo:base", "encoders": ["zoo:clip"]}},
        ]
    )
    out, (base, one, two, fresh) = Path("out"), chained.models
    assert ends_with(chained, base, out).endswith("weights/base") and begins_with(chained, base, out) == "zoo:base"
    assert begins_with(chained, one, out) == ends_with(chained, base, out)
    assert ends_with(chained, one, out) == begins_with(chained, two, out) == "out/models/one/02-b/model"
    assert chained.root(two) is base
    assert begins_with(chained, fresh, out) is None
    with pytest.raises(VsreError, match="never diagnosed untrained"):
        ends_with(chained, fresh, out)


def test_data_are_found_where_they_are_made() -> None:
    folders = data_folders(load_recipe("ladder"), Path("out"))
    assert folders["turn-s"].triplets == Path("out/triplets/train")
    assert folders["pre"].triplets == Path("out/data/pre/triplets")
    assert folders["general-s"].triplets == Path("out/data/general-s/triplets")
    assert folders["turn-g"].questions == Path("out/data/turn-g/questions")


def test_a_recipe_trains_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recipe([{"name": "m", "start": {"checkpoint": "zoo:base"}, "stages": [stage("tune")]}])
    with pytest.raises(VsreError, match="asks for 8 GPUs per machine, 0 are here"):
        processes_of("fsdp2-8", whole)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert processes_of("fsdp2-8", whole) == 8
    with pytest.raises(VsreError, match="trains there"):
        processes_of("fsdp2-4x8", whole)
    with pytest.raises(VsreError, match="Did you mean ddp-8"):
        processes_of("dpp-8", whole)


@pytest.mark.parametrize(
    ("start", "more", "whole"),
    [
        ({"vlm": "llava-hf/llava-1.5-7b-hf"}, {}, "a `vlm`"),
        ({"checkpoint": "zoo:base"}, {"lora": {}}, "lora"),
        ({"checkpoint": "zoo:base"}, {"optimizer": "muon"}, "muon"),
    ],
)
def test_what_needs_whole_weights_is_not_spread(
    start: dict[str, Any], more: dict[str, Any], whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    one = recipe([{"name": "m", "start": start, "stages": [stage("tune", **more)]}])
    assert processes_of("ddp-8", one) == 8
    with pytest.raises(VsreError, match=f"m, stage tune: {whole} needs whole weights.*Use ddp-8"):
        processes_of("fsdp2-8", one)


def test_a_training_whose_call_is_gone_is_not_trained_over(tmp_path: Path) -> None:
    with (
        alone_at_training(tmp_path),
        pytest.raises(VsreError, match="processes of an earlier call still train here"),
        alone_at_training(tmp_path),
    ):
        pass


@pytest.mark.slow
def test_any_model_from_data_to_report_and_the_same_by_a_launcher(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = str(tiny_idefics3(tmp_path / "model"))
    made = recipe(
        [
            {"name": "as it is", "role": "base", "start": {"vlm": folder}},
            {"name": "tuned", "start": {"vlm": folder}, "stages": [stage("tune", lora={"rank": 2, "dropout": 0.0})]},
            {"name": "more", "start": {"model": "tuned"}, "stages": [stage("more", train=["adapters", "llm"])]},
        ],
        notes=["a note of the recipe"],
    )
    here, there = tmp_path / "here", tmp_path / "there"
    result = run_recipe(made, here, console=QUIET)
    assert [row["model"] for row in result["results"]] == ["as it is", "tuned", "more"]
    assert "a note of the recipe" in Path(result["report"]).read_text()
    assert run_recipe(made, here, console=QUIET)["results"] == result["results"], "everything is found done"

    config = yaml.safe_load((CONFIGS / "single.yaml").read_text()) | {"use_cpu": True}
    (tmp_path / "cpu.yaml").write_text(yaml.safe_dump(config))
    shared = run_recipe(made, there, console=QUIET, accelerate=str(tmp_path / "cpu.yaml"))
    assert load_recipe(str(there / "recipe.yaml")).models[2].start.model == "tuned"
    for name in ("tuned", "more"):
        ours, theirs = (load_file(Path(r["trained"][name]["model"]) / "model.safetensors") for r in (shared, result))
        assert all(ours[key].allclose(theirs[key], atol=1e-5) for key in theirs)
        assert shared["trained"][name]["stages"][0]["steps"] == 2
