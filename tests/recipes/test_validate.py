"""What can be known of a recipe before anything is loaded: every fault at once, with what was meant or what to do."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from pydantic import ValidationError
from recipe_fakes import found_in, model, recipe
from rich.console import Console
from typer.testing import CliRunner

from tiny_families_tiles import tiny_idefics3
from tiny_models import tiny_llava, tiny_llm
from vsre.cli import app
from vsre.errors import VsreError
from vsre.recipes import RecipeFaults, load_recipe, recipe_names, run_recipe
from vsre.recipes.estimate import Machine, estimate
from vsre.recipes.memory import GB
from vsre.recipes.schema import DataSpec, LayoutSource, VsrSource
from vsre.recipes.validate import check
from vsre.recipes.workload import question_lengths

RUN = CliRunner()
MISSING = re.compile(r"source: .* does not exist\. ")


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_sound_on_eight_gpus(name: str) -> None:
    """Real sizes: the shapes of the hub's models are in the package. Data are the user's, so paths are missing."""
    shipped = load_recipe(name)
    found = check(shipped, online=False, gpus=8)
    rows = estimate(shipped, found, Machine())
    faults = [fault for fault in found.faults if not MISSING.match(fault)]
    assert not faults
    assert bool(found.faults) == isinstance(shipped.source, VsrSource | LayoutSource)
    assert len(rows) == sum(len(m.stages) for m in shipped.models), "every stage is reckoned"
    assert all(r.fits and 3 * GB < r.memory.total < 80 * GB for r in rows)
    if name in ("table-1", "table-2", "encoders"):
        assert {r.sharding for r in rows if r.stage != "align" and "13B" in r.model} <= {"full"}
        assert all(r.memory.total > 15 * GB for r in rows)
    if name == "encoders":
        eight = 8 * question_lengths(DataSpec(pack="pool")).longest
        tuned = {r.tokens for r in rows if r.model.startswith("VSRE 13B, all four") and r.stage == "tune"}
        assert tuned == {math.ceil(1817 + eight)}


def test_what_a_vlm_cannot_is_said_before_any_work() -> None:
    found = found_in(model({"vlm": "llava-hf/llava-1.5-7b-hf"}, questions_per_image=8, lora={}))
    assert any("a `vlm` is asked one question per sequence" in fault for fault in found.faults)
    sound = recipe([model({"vlm": "llava-hf/llava-1.5-7b-hf"}, train=["adapters"])])
    rows = estimate(sound, check(sound, online=False, gpus=8), Machine(gpus=8, gpu="h100"))
    assert [row.sharding for row in rows] == ["none"], "and it is not spread over devices"


def test_a_language_model_where_pictures_are_asked_about() -> None:
    (fault,) = found_in(model({"checkpoint": "zoo:llm"})).faults
    assert "sees no pictures. Give a language model as `llm`" in fault


@pytest.mark.parametrize("data", [None, "turn-g", [{"triplets": "a", "questions": "b"}], 5])
def test_data_that_are_no_names(data: Any) -> None:
    with pytest.raises(ValidationError, match="give names of the recipe's data sets"):
        recipe([model({"checkpoint": "zoo:base"}, data=data)])


def test_general_questions_know_the_tests_concepts() -> None:
    data = {"turn-g": {"pack": "pool"}, "kept": {"general": {"pictures": 8}}}
    said = [
        found_in(model({"checkpoint": "zoo:base"}, data=["turn-g", "kept"]), data=data, protocol=protocol).notes
        for protocol in ("clean", "clean-concepts")
    ]
    assert ["General questions show" in "".join(notes) for notes in said] == [False, True]


def test_words_that_were_not_meant() -> None:
    found = found_in(
        model({"llm": "zoo:base", "encoders": ["sigllip"]}),
        model({"checkpoint": "zoo:vrse"}) | {"name": "b"},
        model({"llm": "zoo:base", "encoders": ["zoo:clp", "zoo:sam"]}) | {"name": "c"},
        data={"turn-g": {"pack": "pol"}, "many": {"pack": "pool", "per_triplet": 51}},
        diagnose={"packs": ["tests"]},
    )
    for meant in ("'siglip'", "'zoo:vsre'", "'zoo:clip'", "'pool'", "'test-s'"):
        assert any(f"Did you mean {meant}?" in fault for fault in found.faults), (meant, found.faults)
    assert any("per_triplet 51 is more than the 50 templates" in fault for fault in found.faults)
    assert len(found.faults) == 6


def test_one_fault_does_not_hide_another_of_the_same_model() -> None:
    found = found_in(model({"llm": "zoo:bse", "encoders": ["sigllip", "zoo:clp"]}, micro_batch_images=3))
    assert [re.findall("Did you mean (.*)\\?", fault) for fault in found.faults[:3]] == [
        ["'zoo:base'"],
        ["'zoo:clip'"],
        ["'siglip'"],
    ]
    assert len(found.faults) == 4 and "micro_batch_images 3" in found.faults[3]
    untrained = {"name": "n", "start": {"llm": "zoo:base", "encoders": ["zoo:clip"]}}
    assert found_in(untrained).faults == ["n: fresh adapters are never diagnosed untrained. Give it stages."]


def test_some_encoders_of_a_checkpoint() -> None:
    whole, some = (
        found_in(model({"checkpoint": "zoo:merged"} | kept)).shapes["m"] for kept in ({}, {"encoders": ["sam", "clip"]})
    )
    assert some.picture_tokens == whole.picture_tokens // 2
    assert (
        some.parameters["encoders"] < whole.parameters["encoders"] and some.parameters["llm"] == whole.parameters["llm"]
    )
    untrained = {"name": "n", "start": {"checkpoint": "zoo:merged", "encoders": ["clip"]}}
    assert found_in(untrained).faults == [
        "n: without some of its encoders a model is never diagnosed untrained. Give it stages."
    ]
    assert found_in(model({"checkpoint": "zoo:merged", "encoders": ["dino"]})).faults == [
        "m: encoder 'dino': the model has clip, siglip, dinov2, sam."
    ]
    for start, said in (
        ({"vlm": "zoo:base", "encoders": ["clip"]}, "to keep some of its encoders"),
        (
            {"checkpoint": "zoo:merged", "encoders": [{"id": "clip", "tokens": 4}]},
            "image_size and tokens go with `llm`",
        ),
    ):
        with pytest.raises(ValidationError, match=said):
            recipe([model(start)])


def test_a_hub_model_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llava = tiny_llava(tmp_path)
    monkeypatch.setattr("vsre.recipes.hub.cached_file", lambda name, file, **_: str(llava / file))
    found = check(recipe([model({"checkpoint": "some/llava"})]), online=False, to_run=True)
    assert not found.faults and found.shapes["m"].picture_tokens == 36
    assert found.notes == ["not checked on the hub (offline): some/llava"]


def test_a_gguf_file_is_not_fetched_to_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: None)
    start = {"llm": "some/model/file.gguf", "encoders": ["zoo:clip"]}
    found = check(recipe([model(start)]), online=True, to_run=True)
    assert not found.faults and any("nothing can be estimated" in note for note in found.notes)
    away = check(recipe([model(start)]), online=False, to_run=True)
    assert away.faults == ["m: some/model/file.gguf is not in the local cache, and the hub cannot be reached."]


def test_a_batch_that_the_gpus_cannot_share() -> None:
    assert not found_in(model({"checkpoint": "zoo:base"}), gpus=8).faults
    (fault,) = found_in(model({"checkpoint": "zoo:base"}), gpus=3).faults
    assert "batch_images 8 is not a multiple of" in fault


def test_too_many_visual_tokens_for_the_language_model() -> None:
    (fault,) = found_in(model({"llm": "zoo:base", "encoders": ["clip", "siglip", "dinov2", "sam"]})).faults
    assert "1817 visual tokens leave 231 of the language model's 2048 positions" in fault
    budget = [{"id": "clip", "tokens": 256}, {"id": "siglip", "tokens": 256}, "dinov2", "sam"]
    assert not found_in(model({"llm": "zoo:base", "encoders": budget})).faults


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "zeroshot").mkdir()
    (tmp_path / "zeroshot" / "train.jsonl").touch()
    source = {
        "kind": "vsr",
        "train": [str(tmp_path / "zeroshot" / "trian.jsonl")],
        "test": [str(tmp_path / "zeroshot" / "train.jsonl")],
        "images": [str(tmp_path / "zero-shot")],
    }
    found = found_in(model({"checkpoint": "zoo:base"}), source=source)
    assert [re.findall("Did you mean (.*)\\?", fault) for fault in found.faults] == [
        [str(tmp_path / "zeroshot" / "train.jsonl")],
        [str(tmp_path / "zeroshot")],
    ]


def without_template(folder: Path) -> Path:
    for file in folder.rglob("*"):
        if file.name == "chat_template.jinja":
            file.unlink()
        elif file.suffix == ".json":
            content = json.loads(file.read_text())
            if isinstance(content, dict) and content.pop("chat_template", None):
                file.write_text(json.dumps(content))
    return folder


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    llava = tiny_llava(tmp_path)
    assert not found_in(model({"checkpoint": str(llava)})).faults
    bare = str(without_template(shutil.copytree(llava, tmp_path / "bare")))
    for start in ({"checkpoint": bare}, {"vlm": bare}):
        (fault,) = found_in(model(start)).faults
        assert "has no chat template" in fault and "chat_template.jinja" in fault
    # VSRE brings its own, so a language model needs none.
    found = found_in(model({"llm": str(tiny_llm(tmp_path / "llm")), "encoders": ["zoo:clip"]}))
    assert not found.faults and any("VSRE brings one" in note for note in found.notes)


def test_a_chat_template_without_marks_is_for_a_vlm(tmp_path: Path) -> None:
    llava = tiny_llava(tmp_path)
    template = llava / "chat_template.jinja"
    template.write_text(re.sub(r"\{%- (end)?generation -%\}", "", template.read_text()))
    (fault,) = found_in(model({"checkpoint": str(llava)})).faults
    assert "marks" in fault and "`vlm`" in fault
    assert not found_in(model({"vlm": str(llava)})).faults


def test_what_is_out_of_reach_is_a_note_and_before_a_run_a_fault() -> None:
    unknown = [model({"vlm": "nobody/nothing"})]
    found = check(recipe(unknown), online=False)
    assert not found.faults and not found.shapes
    assert found.notes == ["not checked on the hub (offline): nobody/nothing"]
    (fault,) = check(recipe(unknown), online=False, to_run=True).faults
    assert "nobody/nothing is not in the local cache" in fault


def refusing(error: Callable[[], Exception]) -> Callable[..., Any]:
    def model_info(self: HfApi, repo: str, **_: Any) -> Any:
        raise error()

    return model_info


def answered(kind: type, status: int) -> Callable[[], Exception]:
    import httpx2

    request = httpx2.Request("GET", "https://hub.test/api")
    return lambda: kind("no", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("llava-hf/llava-1.5-7b", answered(RepositoryNotFoundError, 404), "no such model.*'llava-hf/llava-1.5-7b-hf'"),
        ("google/gemma-3-4b-it", answered(GatedRepoError, 403), "accepted its licence"),
        ("a b/c", lambda: AssertionError("never asked"), "'a b/c'|not a|Repo id"),
    ],
)
def test_the_hub_says_no(name: str, error: Callable[[], Exception], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "never asked" not in str(error()):
        monkeypatch.setattr(HfApi, "model_info", refusing(error))
    found = check(recipe([model({"vlm": name})]), online=True)
    assert any(re.search(says, fault) for fault in found.faults), found


def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def model_info(self: HfApi, repo: str, **_: Any) -> Any:
        asked.append(repo)
        raise ConnectionError

    monkeypatch.setattr(HfApi, "model_info", model_info)
    start = {"llm": "llava-hf/llava-1.5-7b-hf", "encoders": ["clip", "siglip"]}
    found = check(recipe([model(start)]), online=True)
    assert len(asked) == 1 and not found.faults
    (note,) = (note for note in found.notes if "cannot be reached (ConnectionError)" in note)
    assert note.endswith(
        "llava-hf/llava-1.5-7b-hf, openai/clip-vit-large-patch14-336, google/siglip-so400m-patch14-384"
    )


def test_a_processor_is_tried_for_its_visual_tokens(tmp_path: Path) -> None:
    found = found_in(model({"vlm": str(tiny_idefics3(tmp_path / "m"))}))
    shape = found.shapes["m"]
    assert not shape.guessed and not shape.packs and 20 < shape.picture_tokens < 400 and not found.faults
    for file in (tmp_path / "m").glob("*processor*"):
        file.unlink()
    guessed = found_in(model({"vlm": str(tmp_path / "m")}))
    assert guessed.shapes["m"].guessed and any("1,024 are assumed" in note for note in guessed.notes)


def test_a_run_stops_before_any_work(tmp_path: Path) -> None:
    wrong = recipe(
        [model({"llm": "zoo:base", "encoders": ["sigllip"]}), model({"checkpoint": "zoo:x"}) | {"name": "n"}]
    )
    with pytest.raises(RecipeFaults) as caught:
        run_recipe(wrong, tmp_path / "out", console=Console(quiet=True))
    assert len(caught.value.faults) == 2 and [path.name for path in (tmp_path / "out").iterdir()] == ["locks"]


def test_the_verbs(tmp_path: Path) -> None:
    raw = {**recipe([model({"checkpoint": "zoo:base"})]).model_dump(mode="json", exclude_defaults=True)}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    out = RUN.invoke(app, ["recipes", "validate", str(path), "--offline", "--json", str(tmp_path / "v.json")])
    assert out.exit_code == 0 and "mine: sound" in out.output
    assert json.loads((tmp_path / "v.json").read_text())["stages"][0]["fits"] is True
    raw["models"] += [
        model({"checkpoint": "zoo:bse"}) | {"name": "o"},
        model({"llm": "zoo:base", "encoders": ["clp"]}) | {"name": "p"},
    ]
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(RecipeFaults, match=r"(?s)2 things to fix.*zoo:base.*'clip'"):
        RUN.invoke(app, ["recipes", "validate", str(path), "--offline"], catch_exceptions=False)
    # What is misspelt in one part does not hide what is wrong in another.
    raw["models"].append({"name": "q", "strat": {}})
    raw["models"][0]["stages"][0]["data"] = ["turn-gg"]
    path.write_text(yaml.safe_dump(raw | {"protocl": "clean"}))
    with pytest.raises(RecipeFaults) as caught:
        RUN.invoke(app, ["recipes", "validate", str(path), "--offline"], catch_exceptions=False)
    assert isinstance(caught.value, VsreError), "which the command line turns into exit code 2"
    meant = ["'protocol'", "'start'", "'turn-g'", "'zoo:base'", "'clip'"]
    assert [re.findall(r"Did you mean (.*)\?", fault) for fault in caught.value.faults] == [[m] for m in meant]
    for option, meant in (("--gpu=h10", "'h100'"), ("--sharding=ful", "'full'")):
        with pytest.raises(VsreError, match=f"Did you mean {meant}"):
            RUN.invoke(app, ["recipes", "validate", str(path), "--offline", option], catch_exceptions=False)
    listed = RUN.invoke(app, ["recipes", "ls", "table-1", "--json", str(tmp_path / "l.json")])
    rows = json.loads((tmp_path / "l.json").read_text())
    assert listed.exit_code == 0 and rows[9]["published"] == {"test_g": 66.4, "test_s": 74.7}
    shown = RUN.invoke(app, ["recipes", "show", "table-1", "--row", "10", "--protocol", "paper"])
    written = yaml.safe_load(shown.output)
    assert written["protocol"] == "paper" and [s["name"] for s in written["models"][0]["stages"]] == [
        "align",
        "tune",
        "last",
    ]
    assert RUN.invoke(app, ["recipes", "run", "--help"]).output.count("--row") >= 1
