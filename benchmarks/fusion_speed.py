"""What the fusions cost: visual tokens, adapters, and the time of a forward pass, against sequence.

    python benchmarks/fusion_speed.py [--json OUT] [--threads N] [--rounds N]

The zoo's language model and its four encoders, joined by each fusion with fresh adapters (their values do not affect
what a pass costs). A batch of pictures with one question each is run

    from pixels     encoders, adapters, language model: what a first answer costs
    from features   adapters and language model: a step of training on cached features, without its backward pass

Ways take turns; a figure is the median over rounds, a ratio is that way's seconds over sequence's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from vsre.model import ChannelFusion, Fusion, InterleaveFusion, SequenceFusion, build_vsre, spec_from_checkpoint

ENCODERS = ("zoo:clip", "zoo:siglip", "zoo:dinov2", "zoo:sam")
FUSIONS: dict[str, Fusion] = {
    "sequence": SequenceFusion(),
    "channel": ChannelFusion(),
    "interleave": InterleaveFusion(),
}
PICTURES = 16
QUESTION = "USER: <image>\nIs the cat left of the dog? Answer yes or no. ASSISTANT:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    specs = [spec_from_checkpoint(encoder) for encoder in ENCODERS]
    frames = torch.randint(0, 256, (PICTURES, 3, 96, 96), dtype=torch.uint8)
    found: dict[str, dict[str, Any]] = {}
    ways: dict[tuple[str, str], Any] = {}
    for name, fusion in FUSIONS.items():
        set_seed(0)
        model, processor = build_vsre("zoo:llm", specs, fusion=fusion)
        text = processor.tokenizer(
            [QUESTION.replace("<image>", "<image>" * processor.num_image_tokens)] * PICTURES, return_tensors="pt"
        )
        seen = {"from pixels": {"pixel_values": frames}, "from features": {"encoder_features": model.encode(frames)}}
        for way, given in seen.items():
            ways[name, way] = lambda model=model, inputs={**text, **given}: model(**inputs, logits_to_keep=1)
        found[name] = {
            "tokens": processor.num_image_tokens,
            "adapter_parameters": sum(p.numel() for p in model.adapters.parameters()),
        }

    seconds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    with torch.no_grad():
        for number in range(options.rounds + 2):  # the first two warm up
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                if number > 1:
                    seconds[way].append(time.perf_counter() - began)
    for (name, way), times in seconds.items():
        median, reference = statistics.median(times), statistics.median(seconds["sequence", way])
        found[name][way] = {"ms_per_picture": round(1e3 * median / PICTURES, 3), "ratio": round(median / reference, 2)}

    for name, figures in found.items():
        print(name)
        for key, value in figures.items():
            print(f"{key:>20}  {value}")
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "fusions": found}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
