"""How many prompts per second a diagnosis answers when many prompts ask about one picture.

    python benchmarks/diagnose_speed.py [--json OUT] [--threads N] [--lmms-python PYTHON]

A random model of LLaVA-1.5's shape (8 M parameters, 336-pixel pictures, 576 image tokens) is asked 20 templates about
each of 40 pictures, 16 greedy tokens each, in one process:

    one          the processor and `generate`, one prompt at a time
    batched      the same, at the fastest batch size
    prefix loop  what one would write by hand: an image's key-value cache once, copied for its 20 prompts, padded
    vsre         the engine, including its comparison with the plain way and the likelihoods of yes and no
    lmms-eval    its llava_hf backend, if PYTHON has it installed (this interpreter by default)

The first two and lmms-eval answer a part of the prompts, the others all; ways take turns, a figure is the median over
rounds. `bound` is what cannot be left out: images encoded and their prefixes run once, prompts' own tokens once,
answers' steps, as bare forward passes that attend to nothing outside; `share_of_bound` is the engine's rate over the
bound's. `answers_equal` is the share of whole answers that equal those of `one`, letter by letter (lmms-eval's may not:
if torchvision is installed, its processor resizes pictures with it). `peak_mb` are the process's peaks after 8, 16 and
40 pictures. `first_prompt_s` is what `vsre diagnose` takes from the start of its process to the first answers.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmms_eval_rate
import torch
from diagnose_speed_model import IMAGES, PATCH, PROMPTS, SIZE, TOKENS, questions, templates, write_model
from PIL import Image
from transformers import DynamicCache, LlavaForConditionalGeneration, LlavaProcessor

from vsre.diagnose import Decoding, Prompt, TransformersEngine
from vsre.triplets import Triplet, image_content_id, write_triplets

FIRST = """\
import os, sys
from vsre.diagnose import TransformersEngine
answer = TransformersEngine.answer
def first(self, asked):
    replies = answer(self, asked)
    os._exit(0 if all(reply.error is None for row in replies for reply in row) else 9)
TransformersEngine.answer = first
from vsre.cli import main
main()
"""


class Ways:
    """The ways as functions that answer the first `n` prompts, image after image, and return the answers."""

    def __init__(self, folder: Path, asked: list[tuple[bytes, list[Prompt]]], n: dict[str, int]) -> None:
        self.folder, self.asked, self.n = folder, asked, n
        self.model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
        self.processor = LlavaProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.flat = [(data, prompt) for data, prompts in asked for prompt in prompts]
        self.batch = 1
        self.generate = {"max_new_tokens": TOKENS, "do_sample": False, "pad_token_id": self.tokenizer.pad_token_id}

    def rendered(self, prompt: Prompt) -> str:
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.text}]}]
        return str(self.processor.apply_chat_template(said, add_generation_prompt=True))

    @torch.inference_mode()
    def whole(self, n: int, batch: int) -> list[str]:
        """Whole prompts through `generate`, the first `n` of them."""
        told: list[str] = []
        for start in range(0, n, batch):
            some = self.flat[start : min(n, start + batch)]
            images = [Image.open(io.BytesIO(data)).convert("RGB") for data, _ in some]
            texts = [self.rendered(prompt) for _, prompt in some]
            inputs = self.processor(images=images, text=texts, padding=True, return_tensors="pt")
            out = self.model.generate(**inputs, **self.generate)[:, inputs["input_ids"].shape[1] :]
            told += self.tokenizer.batch_decode(out, skip_special_tokens=True)
        return told

    def one(self) -> list[str]:
        return self.whole(self.n["one"], 1)

    def batched(self) -> list[str]:
        return self.whole(self.n["batched"], self.batch)

    def find_batch(self) -> None:
        found = {size: seconds(lambda size=size: self.whole(64, size)) for size in (4, 8, 16, 32, 64)}  # type: ignore[misc]
        self.batch = min(found, key=lambda size: found[size])

    @torch.inference_mode()
    def prefix_loop(self) -> list[str]:
        told: list[str] = []
        image_token, pad = self.model.config.image_token_id, self.tokenizer.pad_token_id
        for data, prompts in self.asked:
            ids = self.tokenizer([self.rendered(p) for p in prompts])["input_ids"]
            tails = [row[row.index(image_token) + 1 :] for row in ids]
            image = Image.open(io.BytesIO(data)).convert("RGB")
            first = self.processor(images=[image], text=[self.rendered(prompts[0])], return_tensors="pt")
            length = first["input_ids"].shape[1] - len(tails[0])
            prefix = self.model(
                input_ids=first["input_ids"][:, :length],
                pixel_values=first["pixel_values"],
                past_key_values=DynamicCache(config=self.model.config.text_config),
                use_cache=True,
                logits_to_keep=1,
            )
            cache = prefix.past_key_values
            cache.batch_repeat_interleave(len(prompts))
            width = max(map(len, tails))
            step = torch.tensor([[pad] * (width - len(t)) + t for t in tails])
            mask = torch.tensor([[1] * length + [0] * (width - len(t)) + [1] * len(t) for t in tails])
            said = []
            for _ in range(TOKENS):
                places = (mask.cumsum(1) - 1).clamp(min=0)[:, -step.shape[1] :]
                logits = self.model(
                    input_ids=step, attention_mask=mask, position_ids=places, past_key_values=cache, logits_to_keep=1
                ).logits
                step = logits[:, -1].argmax(-1)[:, None]
                said.append(step)
                mask = torch.cat([mask, torch.ones_like(step)], 1)
            rows = torch.cat(said, 1).tolist()
            end = self.tokenizer.eos_token_id
            told += self.tokenizer.batch_decode(
                [row[: row.index(end)] if end in row else row for row in rows], skip_special_tokens=True
            )
        return told

    def engine(self) -> TransformersEngine:
        return TransformersEngine(self.folder, dtype="float32", device="cpu", decoding=Decoding(TOKENS, TOKENS))

    @torch.inference_mode()
    def bound(self) -> None:
        text = self.model.model.language_model
        for start in range(0, IMAGES, 8):
            some = self.asked[start : start + 8]
            images = [Image.open(io.BytesIO(data)).convert("RGB") for data, _ in some]
            pixels = self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
            ids = torch.full((len(some), (SIZE // PATCH) ** 2 + 4), self.model.config.image_token_id)
            ids[:, -4:] = 5
            self.model.model(input_ids=ids, pixel_values=pixels, use_cache=True)
            width = 24  # about what the prompts have after the picture
            for _ in range(0, len(some) * PROMPTS, 80):
                rows = torch.full((80, width), 5)
                self.model.lm_head(text(input_ids=rows, use_cache=False).last_hidden_state[:, -1])
                for _ in range(TOKENS - 1):
                    self.model.lm_head(text(input_ids=rows[:, :1], use_cache=False).last_hidden_state)


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024))


def first_prompt(model: Path, folder: Path, asked: list[tuple[bytes, list[Prompt]]]) -> float:
    """Seconds from the start of `vsre diagnose`, with the benchmark's number of templates, to its first answers."""
    statement = {"subject": "cat", "relation": "left of", "object": "dog", "caption": "The cat is left of the dog."}
    pictures = [data for data, _ in asked]
    write_triplets(
        folder / "triplets",
        (
            Triplet(
                image_id=image_content_id(data), image_name="", label=True, split="test", origin="benchmark",
                image=data, **statement,
            )
            for data in pictures
        ),
    )  # fmt: skip
    some = [{"id": t.id, "text": t.text, "format": t.format.name, "style": t.style} for t in templates()]
    pack = folder / "pack.yaml"  # JSON is YAML too
    pack.write_text(json.dumps({"name": "some", "purpose": "a part of the pool", "templates": some}))
    command = [sys.executable, "-c", FIRST, "diagnose", str(model), "-t", str(folder / "triplets"), "--pack", str(pack)]
    command += ["-o", str(folder / "first"), "--device", "cpu"]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def run_engine(engine: TransformersEngine, asked: list[Any], peaks: list[int] | None = None) -> list[Any]:
    replies = []
    for start in range(0, len(asked), engine.batch_images):
        replies += engine.answer(asked[start : start + engine.batch_images])
        if peaks is not None and start // engine.batch_images in (0, 1, (len(asked) - 1) // engine.batch_images):
            peaks.append(peak_mb())
    return [reply for row in replies for reply in row]


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    asked = questions()
    write_model(folder / "model", [p.text for _, prompts in asked for p in prompts])
    total = IMAGES * PROMPTS
    ways = Ways(folder / "model", asked, {"one": options.part // 2, "batched": options.part})
    peaks: list[int] = []
    engine = ways.engine()
    replies = run_engine(engine, asked, peaks)
    notes = engine.notes()
    ways.find_batch()
    times: dict[str, list[float]] = {name: [] for name in ("one", "batched", "prefix_loop", "vsre", "bound")}
    said: dict[str, list[str]] = {}
    for _ in range(options.rounds):
        for name in ("one", "batched", "prefix_loop"):
            began = time.perf_counter()
            said[name] = getattr(ways, name)()
            times[name].append((time.perf_counter() - began) / len(said[name]))
        fresh = ways.engine()
        times["vsre"].append(seconds(lambda fresh=fresh: run_engine(fresh, asked)) / total)  # type: ignore[misc]
        times["bound"].append(seconds(ways.bound) / total)
    first = [first_prompt(folder / "model", folder / str(n), asked) for n in range(options.rounds)]
    rate = {name: 1 / statistics.median(found) for name, found in times.items()}
    texts = [r.text for r in replies]
    said["one"] = ways.whole(options.part, 1)
    result: dict[str, Any] = {
        "prompts_per_s": round(rate["vsre"], 1),
        "share_of_bound": round(rate["vsre"] / rate["bound"], 3),
        "ratio_to_lmms_eval": None,
        "ratio_to_one": round(rate["vsre"] / rate["one"], 2),
        "ratio_to_batched": round(rate["vsre"] / rate["batched"], 2),
        "ratio_to_prefix_loop": round(rate["vsre"] / rate["prefix_loop"], 2),
        "rates": {name: round(value, 1) for name, value in rate.items()},
        "answers_equal": share(texts, said["one"]),
        "answers_equal_of_prefix_loop": share(said["prefix_loop"], said["one"]),
        "different_answers": len(set(texts)),
        "batch": ways.batch,
        "peak_mb": peaks,
        "first_prompt_s": round(statistics.median(first), 2),
        "way": {key: notes[key] for key in ("way", "why", "prefix_shapes")},
        "parameters": sum(p.numel() for p in ways.model.parameters()),
    }
    if found := lmms_eval_rate.version(options.lmms_python):
        part = [(data, prompt.text) for data, prompt in ways.flat[: options.part]]
        lmms, answers = lmms_eval_rate.measure(
            options.lmms_python, folder / "model", folder / "lmms", part, tokens=TOKENS, threads=options.threads
        )
        result["rates"]["lmms_eval"] = round(lmms, 1)
        result["ratio_to_lmms_eval"] = round(rate["vsre"] / lmms, 2)
        result["lmms_eval"] = found
        result["answers_equal_of_lmms_eval"] = share(
            [answers[i].strip() for i in range(len(part))], [text.strip() for text in said["one"]]
        )
    return result


def share(some: list[Any], plain: list[str]) -> float:
    """The share of answers that equal the plain way's, of those that it answered."""
    return round(sum(a == b for a, b in zip(some, plain, strict=False)) / len(plain), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", type=int, default=160, help="prompts for the slow ways")
    parser.add_argument("--lmms-python", default=sys.executable, help="an interpreter that has lmms-eval")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), options) | {"threads": options.threads, "torch": torch.__version__}
    for key, value in result.items():
        print(f"{key:>28}  {value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
