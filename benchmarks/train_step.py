"""How long a training step takes: 32 images with 12 questions each, packed by image against one question a sequence.

    python benchmarks/train_step.py [--json OUT]

Random models of the shipped size (a language model of 0.9 million parameters behind one encoder or four, 36 visual
tokens each) train through `run_stages`, exactly as a recipe does. `step_s` is the median over the log's steps;
`cpu_s_per_step` counts processor time, which other programs do not change, the run's start and end included.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaConfig, LlamaForCausalLM

from vsre.model import build_vsre, spec_from_checkpoint
from vsre.rewrite import read_questions, rewrite
from vsre.train import run_stages
from vsre.train.logs import LOG, read_log
from vsre.triplets import Triplet, image_content_id, write_triplets

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from tiny_models import tiny_encoders, tiny_tokenizer

IMAGES, QUESTIONS, STEPS = 64, 12, 5


def write_data(folder: Path) -> dict[str, Path]:
    """IMAGES noise pictures with one triplet each, asked through QUESTIONS templates of the pool."""
    noise = np.random.default_rng(0)
    triplets = []
    for number in range(IMAGES):
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(buffer, "PNG")
        label = bool(number % 2)
        words = {"subject": "cat", "relation": "left of", "object": "dog"}
        triplets.append(
            Triplet(
                image_id=image_content_id(buffer.getvalue()),
                image_name=f"{number}.png",
                caption="The cat is left of the dog.",
                label=label,
                split="train",
                origin="noise",
                image=buffer.getvalue(),
                **words,
            )
        )
    write_triplets(folder / "triplets", triplets)
    rewrite(folder / "triplets", folder / "questions", "pool", per_triplet=QUESTIONS)
    return {"triplets": folder / "triplets", "questions": folder / "questions"}


def write_model(folder: Path, encoders: list[str], questions: Path) -> Path:
    torch.manual_seed(0)
    texts = [f"{q.prompt} {q.answer}" for q in read_questions(questions)]
    paths, tokenizer = tiny_encoders(folder / "encoders"), tiny_tokenizer().train_new_from_iterator(texts, 1536)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    model, processor = build_vsre(folder / "llm", [spec_from_checkpoint(paths[name]) for name in encoders])
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model"


def measure(model_folder: Path, source: dict[str, Path], out: Path, train: list[str], packed: bool) -> dict[str, Any]:
    """Median seconds of a step that asks 32 x QUESTIONS questions, and what follows from it."""
    model = AutoModelForImageTextToText.from_pretrained(model_folder)
    processor = AutoProcessor.from_pretrained(model_folder)
    stage = {
        "name": "step",
        "train": train,
        "data": [source],
        "batch_images": 32 if packed else 32 * QUESTIONS,
        "micro_batch_images": 32,
        "questions_per_image": QUESTIONS if packed else 1,
        "max_steps": STEPS,
        "save_every": STEPS,
    }
    began, busy = time.perf_counter(), time.process_time()
    summary = run_stages(model, processor, [stage], out, seed=0, console=Console(file=io.StringIO()))
    wall, cpu = time.perf_counter() - began, time.process_time() - busy
    log = read_log(out / "01-step" / LOG)[2:]
    seconds = statistics.median(line["seconds"] for line in log)
    return {
        "trains": "+".join(train),
        "packed": packed,
        "visual_tokens": summary["stages"][0]["visual_tokens"],
        "step_s": round(seconds, 4),
        "questions_per_s": round(32 * QUESTIONS / seconds, 1),
        "wall_s": round(wall, 2),
        "cpu_s_per_step": round(cpu / STEPS, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_data(folder)
        for encoders in (["clip"], ["clip", "siglip", "dinov2", "sam"]):
            model = write_model(folder / f"{len(encoders)}-encoders", encoders, source["questions"])
            for train in (["adapters"], ["adapters", "llm"]):
                for packed in (True, False):
                    row = measure(model, source, folder / f"run-{len(rows)}", train, packed)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    if arguments.json:
        machine = {"torch": torch.__version__, "threads": arguments.threads, "processor": platform.processor()}
        arguments.json.write_text(json.dumps({**machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
