from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from vsre.errors import VsreError
from vsre.train import DataSource, Stage, load_stages, parse_stages

DATA = [{"triplets": "t", "questions": "q"}]


def test_defaults_are_those_of_llava_1_5() -> None:
    align, tune = parse_stages(
        [
            {"name": "align", "train": ["adapters"], "data": DATA},
            {"name": "tune", "train": ["adapters", "llm"], "data": DATA},
        ]
    )
    assert (align.lr, align.batch_images) == (1e-3, 256)
    assert (tune.lr, tune.batch_images) == (2e-5, 128)
    for stage in (align, tune):
        assert (stage.schedule, stage.warmup, stage.weight_decay, stage.epochs) == ("cosine", 0.03, 0.0, 1)
    assert align.data == (DataSource(triplets=Path("t"), questions=Path("q")),)


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 2e-5), ("muon", None)])
def test_low_rank_layers_go_with_either_optimizer(optimizer: str, rate: float | None) -> None:
    low = {"name": "tune", "train": ["adapters", "llm"], "data": DATA, "lora": {}, "optimizer": optimizer}
    (stage,) = parse_stages([low])
    assert (stage.lr, stage.adapters_lr) == (2e-4, rate)
    if optimizer == "muon":
        with pytest.raises(VsreError, match="adapters_lr needs adapters in train and the optimizer adamw"):
            parse_stages([low | {"adapters_lr": 1e-5}])


def test_any_number_of_stages_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "stages.yaml"
    row = "- {name: %s, train: [adapters], data: [{triplets: a, questions: b}], lr: 1.0e-4}\n"
    path.write_text("".join(row % name for name in ("pre", "ift", "turn-s")))
    assert [s.name for s in load_stages(path)] == ["pre", "ift", "turn-s"]
    path.write_text("stages:\n" + "".join("  " + row % name for name in ("pre", "ift")))
    assert [s.lr for s in load_stages(path)] == [1e-4, 1e-4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_image": 4}, "did you mean 'batch_images'"),
        ({"learning_rate": 1}, "unknown key 'learning_rate'"),
        ({"train": ["adapter"]}, "train.0"),
        ({"train": []}, "train"),
        ({"lr": -1}, "lr"),
        ({"name": "../up"}, "name"),
        ({"data": [{"triplet": "t", "questions": "q"}]}, "did you mean 'triplets'"),
    ],
)
def test_a_wrong_stage_is_refused_by_name(change: dict, said: str) -> None:
    with pytest.raises(VsreError) as error:
        parse_stages([{"name": "align", "train": ["adapters"], "data": DATA, **change}], "my.yaml")
    assert said.lower() in str(error.value).lower()
    assert "my.yaml: stage" in str(error.value)


def test_a_misspelt_key_is_refused_in_python_too() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'warmup'"):
        Stage(name="a", train=("llm",), data=DATA, warm_up=0.1)  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("text", ["", "a: [", "just words", "[]", "- 1"])
def test_a_file_without_stages_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(VsreError, match=r"s\.yaml"):
        load_stages(tmp_path / "s.yaml")


def test_names_must_differ_and_batches_divide() -> None:
    stage = {"name": "a", "train": ["llm"], "data": DATA, "batch_images": 10, "micro_batch_images": 4}
    with pytest.raises(VsreError, match="two stages are called a"):
        parse_stages([stage, stage])
    with pytest.raises(VsreError, match="not a multiple"):
        parse_stages([stage])[0].micro_batch()
    assert Stage.model_validate({**stage, "micro_batch_images": 5}).micro_batch() == (5, 2)
    assert Stage.model_validate({**stage, "micro_batch_images": None}).micro_batch(2) == (5, 1)
