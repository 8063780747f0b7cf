"""Encoder options and fusions in recipes and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from vsre.cli import app
from vsre.cli.models import _named
from vsre.errors import VsreError
from vsre.model import ChannelFusion
from vsre.recipes.hub import Checkpoints
from vsre.recipes.schema import Start
from vsre.recipes.shape import shape_of
from vsre.recipes.start import encoder_specs, open_model

FOUR = ["zoo:clip", "zoo:siglip", "zoo:dinov2", "zoo:sam"]


def test_a_start_with_options() -> None:
    start = Start.model_validate(
        {
            "llm": "zoo:llm",
            "encoders": ["zoo:clip", {"id": "zoo:sam", "tokens": 16}, {"id": "zoo:dinov2", "image_size": 160}],
            "fusion": {"kind": "channel", "grid": 5},
        }
    )
    assert [spec.tokens for spec in encoder_specs(start.encoders)] == [36, 16, 100]
    model, processor = open_model(None, start.llm, start.encoders, fusion=start.fusion, seed=0)
    assert model.fusion == ChannelFusion(5) and processor.num_image_tokens == 25
    assert Start.model_validate(start.model_dump()) == start
    assert Start(llm="zoo:llm", encoders=["zoo:clip"]).fusion == "sequence"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fusion": "chanel"}, "did you mean 'channel'"),
        ({"fusion": {"kind": "interleave", "gird": 3}}, "did you mean 'grid'"),
        ({"encoders": [{"id": "zoo:clip", "token": 3}]}, "tokens"),
        ({"encoders": [{"id": "zoo:clip", "tokens": 0}]}, "greater than or equal to 1"),
        ({"llm": None, "encoders": [], "checkpoint": "zoo:vsre", "fusion": "channel"}, "goes with `llm`"),
    ],
)
def test_mistakes_are_named(fields: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Start.model_validate({"llm": "zoo:llm", "encoders": FOUR} | fields)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ([], 144),
        (["--fusion", "channel"], 36),
        (["--fusion", "interleave", "--by", "row", "--grid", "4"], 64),
        (["--tokens", "zoo:sam=16", "--image-size", "zoo:clip=192"], 232),
        (["--encoders", "a=zoo:clip,b=zoo:clip,zoo:sam", "--tokens", "b=16", "--tokens", "zoo:sam=4"], 56),
    ],
)
def test_plan_on_the_command_line(options: list[str], tokens: int, tmp_path: Path) -> None:
    stages = tmp_path / "stages.yaml"
    stages.write_text("- {name: align, train: [adapters], data: [{triplets: none, questions: none}]}\n")
    where = ["train", str(stages), "-o", str(tmp_path / "out"), "--json", str(tmp_path / "plan.json")]
    built = ["--plan", "--llm", "zoo:llm", "--encoders", ",".join(FOUR)]
    result = CliRunner().invoke(app, [*where, *built, *options])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "plan.json").read_text())["tokens"] == tokens


def test_encoders_are_named(tmp_path: Path) -> None:
    start = Start.model_validate({"llm": "zoo:llm", "encoders": [{"id": "zoo:clip", "name": "near"}, "zoo:clip"]})
    assert [spec.name for spec in encoder_specs(start.encoders)] == ["near", "clip"]
    shape = shape_of(start, Checkpoints(online=False))
    assert shape.picture_tokens == 72
    with pytest.raises(VsreError, match="two have the same name"):
        shape_of(Start(llm="zoo:llm", encoders=["zoo:clip", "zoo:clip"]), Checkpoints(online=False))
    with pytest.raises(ValidationError, match="keeps its encoders as they are"):
        Start.model_validate({"checkpoint": "zoo:vsre", "encoders": [{"id": "clip", "name": "near"}]})
    assert [_named(entry) for entry in ("a-1=b/c", "b/c", "./x=1/e", "a=./x=1/e")] == [
        ("a-1", "b/c"),
        (None, "b/c"),
        (None, "./x=1/e"),
        ("a", "./x=1/e"),
    ]


def test_a_checkpoint_has_no_plan(tmp_path: Path) -> None:
    stages = tmp_path / "stages.yaml"
    stages.write_text("- {name: align, train: [adapters], data: [{triplets: none, questions: none}]}\n")
    result = CliRunner().invoke(
        app, ["train", str(stages), "-o", str(tmp_path / "o"), "--checkpoint", "zoo:base", "--plan"]
    )
    assert result.exit_code != 0 and "it goes with --llm" in str(result.exception)
    assert not (tmp_path / "o").exists()


def test_an_option_for_no_encoder_is_named(tmp_path: Path) -> None:
    stages = tmp_path / "stages.yaml"
    stages.write_text("- {name: align, train: [adapters], data: [{triplets: none, questions: none}]}\n")
    for option in ("--tokens", "--image-size"):
        for given in ("sma=16", "clip=big", "clip=0"):
            result = CliRunner().invoke(app, ["train", str(stages), "-o", "x", "--llm", "zoo:llm", option, given])
            assert result.exit_code != 0 and given in str(result.exception)
