"""A step's result does not depend on how it is computed (test_processes.py has processes that share it), and how many
there are.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from train_world import load, write_world
from transformers import OPTConfig, OPTForCausalLM

from tiny_models import tiny_encoders, tiny_llava, tiny_tokenizer
from vsre.model import build_vsre, spec_from_checkpoint
from vsre.train import freezing, run_stages
from vsre.train.logs import read_log
from vsre.train.prepare import schedule
from vsre.train.stages import parse_stages

STEPS, PACKS = 3, 4


def train(model: Path, source: dict[str, Path], out: Path, micro: int) -> Path:
    """Three steps of four packs whose token counts differ, `micro` packs a pass; the folder of the weights."""
    stage: dict[str, Any] = {
        "name": "tune",
        "train": ["adapters", "llm"],
        "data": [source],
        "batch_images": PACKS,
        "micro_batch_images": micro,
        "questions_per_image": 4,
        "max_steps": STEPS,
        "save_every": STEPS,
        "lr": 1e-3,
        "max_grad_norm": 1e9,
    }
    loaded, processor = load(model)
    return Path(run_stages(loaded, processor, [stage], out, seed=1, console=Console(file=io.StringIO()))["model"])


def assert_same_training(start: Path, one: Path, other: Path) -> None:
    """The two changed the weights alike: the difference is small beside the change."""
    first, a, b = ({n: p.detach() for n, p in load(f)[0].named_parameters()} for f in (start, one, other))
    moved = torch.sqrt(sum(((a[n] - first[n]) ** 2).sum() for n in first))
    apart = torch.sqrt(sum(((a[n] - b[n]) ** 2).sum() for n in first))
    assert moved > 0.01
    assert apart < 1e-3 * moved, float(apart / moved)


def test_four_packs_at_once_train_like_four_passes_of_one(tmp_path: Path) -> None:
    model, source = tiny_llava(tmp_path), write_world(tmp_path / "world")
    at_once, one_by_one = (train(model, source, tmp_path / f"run-{m}", m) for m in (4, 1))
    assert_same_training(model, at_once, one_by_one)


def test_checkpointing_does_not_turn_on_dropout_in_a_frozen_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPT drops within attention, and in its layers themselves."""
    tokenizer, source = tiny_tokenizer(), write_world(tmp_path / "world")
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
    }
    torch.manual_seed(0)
    config = OPTConfig(num_attention_heads=2, dropout=0.3, attention_dropout=0.3, **sizes)
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    tokenizer.save_pretrained(tmp_path / "opt")
    clip = spec_from_checkpoint(tiny_encoders(tmp_path / "encoders")["clip"])
    original, recomputed = freezing.checkpoint, []
    monkeypatch.setattr(freezing, "checkpoint", lambda *a, **k: (recomputed.append(a), original(*a, **k))[1])
    stage = {"name": "align", "train": ["adapters"], "data": [source], "batch_images": 4, "max_steps": 3, "lr": 1e-3}
    losses = []
    for on in (False, True):
        torch.manual_seed(0)
        model, processor = build_vsre(tmp_path / "opt", [clip])
        stages = [stage | {"questions_per_image": 1, "gradient_checkpointing": on}]
        out = tmp_path / f"run-{on}"
        run_stages(model, processor, stages, out, seed=1, console=Console(file=io.StringIO()))
        losses.append([line["loss"] for line in read_log(out / "01-align" / "log.jsonl")])
        assert bool(recomputed) == on and not any("forward" in vars(module) for module in model.modules())
    assert losses[0] == losses[1]


class Data:
    """As much of a stage's questions as a schedule looks at: 100 pictures with one each."""

    image_of = torch.arange(100).numpy()

    def __len__(self) -> int:
        return len(self.image_of)


@pytest.mark.parametrize(("epochs", "steps"), [(0.07, 7), (0.071, 8), (1, 100), (1e-9, 1)])
def test_a_fraction_of_an_epoch_has_no_step_too_many(epochs: float, steps: int, tmp_path: Path) -> None:
    source = {"triplets": "t", "questions": "q"}
    stage = {"name": "tune", "train": ["llm"], "data": [source], "batch_images": 1, "epochs": epochs}
    data: Any = Data()
    assert schedule(data, parse_stages([stage])[0], tmp_path, 0, questions_per_image=1)[1].max_steps == steps
