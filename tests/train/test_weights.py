"""Weights that are put into a model are all there, or none of them is put in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from train_world import load, write_world
from transformers import LlamaForCausalLM

from tiny_models import tiny_encoders, tiny_llava, tiny_llm, tiny_text_config, tiny_tokenizer, tiny_vsre
from vsre.errors import VsreError
from vsre.model import build_vsre, spec_from_checkpoint
from vsre.train import run_stages
from vsre.train.checkpoints import load_weights


@pytest.mark.parametrize("made", [tiny_vsre, tiny_llava])
def test_weights_that_are_missing_are_named_and_nothing_is_loaded(made: Any, tmp_path: Path) -> None:
    folder = made(tmp_path)
    model, _ = load(folder)
    file = folder / "model.safetensors"
    held = load_file(file)
    gone = [name for name in held if "layers.1" in name][:2]
    save_file({name: t + 1 for name, t in held.items() if name not in gone}, file, metadata={"format": "pt"})
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(VsreError, match=r"lacks 2 of the model's weights \(\S+layers\.1\."):
        load_weights(model, folder)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())


def test_tied_weights_are_saved_once_and_are_not_missing(tmp_path: Path) -> None:
    config = tiny_text_config(tiny_tokenizer())
    config.tie_word_embeddings = True
    saved, model = LlamaForCausalLM(config), LlamaForCausalLM(config)
    saved.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    load_weights(model, tmp_path)
    assert all(a.equal(b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    model = LlamaForCausalLM(tiny_text_config(tiny_tokenizer()))
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(VsreError, match="Only safetensors are read"):
        load_weights(model, tmp_path)


def test_settings_of_sampling_that_a_language_model_came_with_do_not_stop_a_stage_at_its_end(tmp_path: Path) -> None:
    """Vicuna's, and a tokenizer that is given <pad>: the Trainer changes one of the settings."""
    llm, clip = tiny_llm(tmp_path / "llm"), spec_from_checkpoint(tiny_encoders(tmp_path / "encoders")["clip"])
    (llm / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_p": 0.6, "eos_token_id": 1}))
    model, processor = build_vsre(llm, [clip])
    source = {kind: str(path) for kind, path in write_world(tmp_path / "world", images=2).items()}
    stage = {"name": "tune", "train": ["adapters"], "data": [source], "batch_images": 2, "max_steps": 1}
    figures = run_stages(model, processor, [stage], tmp_path / "run", seed=0, console=Console(file=io.StringIO()))
    saved, _ = load(Path(figures["model"]))
    assert (saved.generation_config.temperature, saved.generation_config.top_p) == (None, None)
    assert saved.generation_config.pad_token_id == processor.tokenizer.pad_token_id
