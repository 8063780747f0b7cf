"""What packing an image's questions into one sequence gains in training, against asking them one by one.

    python benchmarks/packing.py [--json OUT] [--threads N]

Three ways to learn the same questions about the same pictures, forward and backward, on the same model and the same
visual tokens (computed beforehand, so that encoders play no part):

    single      one question per sequence, plain causal attention; the fastest batch size is found first
    multi-turn  LLaVA's conversation: all questions of a picture in one causal sequence. Cheap, but each question also
                sees the earlier ones with their answers, so it computes something else
    packed      one sequence per picture, branches that do not see each other, as vsre trains

`ratio` is single's seconds over packed's. `bound` is what the number of tokens allows, for V visual tokens and K
questions of T tokens: K (V + T) / (V + K T); a ratio above it means that attention gains too, since pictures then
attend to themselves only once. Ways take turns; a figure is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from vsre.train import Example, Packer
from vsre.train.attention import BranchAttention

VOCABULARY, IMAGE = 1536, 3

SETTINGS: dict[str, dict[str, Any]] = {
    "455 visual tokens, 16 questions of 32": {
        "visual": 455, "questions": 16, "tokens": 32, "images": 2, "hidden": 512, "layers": 4, "heads": 8,
    },
    "demo base: 36 visual tokens, 12 questions of 30": {
        "visual": 36, "questions": 12, "tokens": 30, "images": 16, "hidden": 128, "layers": 4, "heads": 4,
    },
    "demo VSRE: 144 visual tokens, 12 questions of 30": {
        "visual": 144, "questions": 12, "tokens": 30, "images": 16, "hidden": 128, "layers": 4, "heads": 4,
    },
}  # fmt: skip


def language_model(hidden: int, layers: int, heads: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=int(hidden * 2.75),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=4096,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).train()


def examples(images: int, questions: int, tokens: int) -> list[list[Example]]:
    """Random questions of `tokens` tokens behind the image token, the last four of which are learnt."""
    random = np.random.default_rng(0)
    ids = random.integers(4, VOCABULARY, (images, questions, tokens)).astype(np.int32)
    lead = np.array([IMAGE], dtype=np.int32)
    return [[Example(np.concatenate([lead, q]), tokens - 3, tokens + 1) for q in rows] for rows in ids]


class Ways:
    """The three ways as functions that return the mean loss per learnt token and add up gradients."""

    def __init__(self, shape: dict[str, Any]) -> None:
        self.model = language_model(shape["hidden"], shape["layers"], shape["heads"])
        self.packs = examples(shape["images"], shape["questions"], shape["tokens"])
        self.visual = torch.randn(shape["images"], shape["visual"], shape["hidden"])
        self.packer = Packer(image_token_id=IMAGE, visual_tokens=shape["visual"], pad_id=0)
        self.attention = BranchAttention(self.model)
        self.learnt = sum(e.end - e.first for pack in self.packs for e in pack)
        self.rows = [(i, e) for i, pack in enumerate(self.packs) for e in pack]
        self.rows_at_once = len(self.packs)

    def _step(self, batch: dict[str, Any], visual: torch.Tensor, **inputs: Any) -> float:
        ids, labels = batch["input_ids"], batch["labels"]
        embeddings = self.model.get_input_embeddings()(ids)
        places = (ids == IMAGE)[..., None].expand_as(embeddings)
        embeddings = embeddings.masked_scatter(places, visual)
        hidden = self.model.model(inputs_embeds=embeddings, use_cache=False, **inputs).last_hidden_state
        targets = F.pad(labels, (0, 1), value=-100)[:, 1:]
        kept = targets != -100
        loss = F.cross_entropy(self.model.lm_head(hidden[kept]), targets[kept], reduction="sum") / self.learnt
        loss.backward()
        return float(loss.detach())

    def single(self) -> float:
        total = 0.0
        for start in range(0, len(self.rows), self.rows_at_once):
            some = self.rows[start : start + self.rows_at_once]
            batch = self.packer.batch([[e] for _, e in some])
            total += self._step(batch, self.visual[[i for i, _ in some]])
        return total

    def packed(self) -> float:
        batch = self.packer.batch(self.packs)
        inputs = self.attention.inputs(batch["branch"])
        with self.attention.active():
            return self._step(batch, self.visual, position_ids=batch["position_ids"], **inputs)

    def multi_turn(self) -> float:
        batch = self.packer.batch(self.packs)  # the same tokens, with consecutive positions
        return self._step(batch, self.visual)

    def find_batch(self) -> None:
        """Take the batch size at which `single` is fastest."""
        found = {}
        for size in sorted({1, 2, 4, 8, 16, 32, 64} | {len(self.rows)}):
            if size <= len(self.rows):
                self.rows_at_once = size
                found[size] = min(seconds(self.single) for _ in range(2))
                if found[size] > 1.5 * min(found.values()):
                    break
        self.rows_at_once = min(found, key=lambda size: found[size])


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(shape: dict[str, Any], rounds: int) -> dict[str, Any]:
    ways = Ways(shape)
    ways.packed()
    ways.find_batch()
    losses = {"single": ways.single(), "packed": ways.packed()}
    times: dict[str, list[float]] = {"single": [], "multi_turn": [], "packed": []}
    for _ in range(rounds):
        for name, taken in times.items():
            ways.model.zero_grad()
            taken.append(seconds(getattr(ways, name)))
    took = {name: statistics.median(taken) for name, taken in times.items()}
    v, k, t = shape["visual"], shape["questions"], shape["tokens"]
    bound, ratio = k * (v + t) / (v + k * t), took["single"] / took["packed"]
    return {
        "ratio": round(ratio, 3),
        "bound": round(bound, 3),
        "share_of_bound": round(ratio / bound, 3),
        "multi_turn_ratio": round(took["single"] / took["multi_turn"], 3),
        "loss_apart": abs(losses["single"] - losses["packed"]) / losses["single"],
        "seconds": {name: round(s, 4) for name, s in took.items()},
        "questions_per_s_packed": round(k * shape["images"] / took["packed"], 1),
        "single_batch": ways.rows_at_once,
        "attention": "packed kernels" if ways.attention.maskless else "mask",
        "shape": shape,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {}
    for name, shape in SETTINGS.items():
        found[name] = measure(shape, arguments.rounds)
        print(name, json.dumps({k: v for k, v in found[name].items() if k != "shape"}), flush=True)
    if arguments.json:
        first = next(iter(found.values()))
        head = {key: first[key] for key in ("ratio", "bound", "share_of_bound")}
        machine = {"torch": torch.__version__, "threads": arguments.threads}
        arguments.json.write_text(json.dumps(head | machine | {"settings": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
