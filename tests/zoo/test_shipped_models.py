"""The shipped models: real classes, safetensors only, small, with cards, and nothing of the machine that made them."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vsre.model import zoo_names
from vsre.zoo.train import ORDER, WEIGHTS

pytestmark = pytest.mark.skipif(not zoo_names(), reason="no shipped models here: run `vsre zoo train all`")
MODELS = tuple(name for name in ORDER if name != "sdxl")  # that is a pipeline: test_diffusion_shipped.py
CLASSES = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel", "dinov2": "Dinov2Model", "sam": "SamVisionModel"}


def test_all_are_there_and_small() -> None:
    assert set(zoo_names()) == set(MODELS)
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) < 60e6


@pytest.mark.parametrize("name", MODELS)
def test_files_and_cards(name: str) -> None:
    files = {f.name for f in (WEIGHTS / name).iterdir()}
    assert {"README.md", "card.json", "config.json", "model.safetensors"} <= files
    assert not {f for f in files if f.endswith((".bin", ".pt", ".pkl", ".pth"))}
    card = json.loads((WEIGHTS / name / "card.json").read_text())
    assert card["made"]["steps"] > 0 and card["settings"]["objective"]
    for file in (WEIGHTS / name).glob("*.json"):
        text = file.read_text()
        assert "/home/" not in text and "/work" not in text and "/root" not in text and "/Users/" not in text, file
    if "tokenizer.json" in files:
        saved = json.loads((WEIGHTS / name / "tokenizer.json").read_text())
        assert saved["truncation"] is None and saved["padding"] is None


@pytest.mark.parametrize("name", CLASSES)
def test_encoders_load_as_their_real_class(name: str) -> None:
    model = AutoModel.from_pretrained(WEIGHTS / name)
    assert type(model).__name__ == CLASSES[name]
    with torch.no_grad():
        assert torch.isfinite(model(torch.rand(1, 3, 96, 96)).last_hidden_state).all()


def test_the_language_model_reads_the_templates() -> None:
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS / "llm")
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "llm")
    told = {"The cat is left of the dog.": "Yes", "The cat is not left of the dog.": "No"}
    for fact, answer in told.items():
        ids = tokenizer(f"USER: {fact}\nIs the cat left of the dog? Answer yes or no. ASSISTANT:", return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=4, do_sample=False)
        assert tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip() == answer


def test_the_base_answers_about_a_picture() -> None:
    model = AutoModelForImageTextToText.from_pretrained(WEIGHTS / "base")
    processor = AutoProcessor.from_pretrained(WEIGHTS / "base")
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a cat? Say yes or no."}]}
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=Image.new("RGB", (200, 150), "green"), text=text, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    answer = processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert answer in {"Yes", "No"}


@pytest.mark.parametrize("name", ["llm", "base", "merged", "vsre"])
def test_they_generate_with_their_cache(name: str) -> None:
    for file in WEIGHTS.glob(f"{name}/*config.json"):
        assert '"use_cache": false' not in file.read_text(), file
