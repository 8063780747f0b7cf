"""Where the time of a whole experiment goes.

    pip install py-spy
    python benchmarks/profile_run.py [--json OUT] [--recipe demo] [--source CHECKOUT/src] [--hertz N]

A recipe is run as `vsre run` runs it, while two py-spy processes sample its main thread without stopping it: one all
the time, one only while it holds Python's lock. Kernels of PyTorch, NumPy and Pillow release the lock, so the second
share is what the interpreter itself costs. `--source` profiles the vsre of another checkout, for a before and after.

A sample belongs to the first part of the tables below that one of its frames names; a part's seconds are its samples
over the rate. Other processes that a step starts (drawing, painting) count as the step's time spent waiting for them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

PHASES = {
    "draw the scenes": r"write_world",
    "read the triplets": r"import_vsr",
    "repaint": r"\brepaint \(",
    "rewrite": r"\brewrite \(",
    "train": r"run_stages",
    "diagnose": r"\bdiagnose \(vsre/diagnose",
    "report": r"write_report",
    "load models": r"open_model|TransformersEngine.__init__",
    "start and imports": r".",
}
PARTS = {
    "train": {
        "questions to tokens": r"open_store",
        "decode pictures": r"load_image",
        "process pictures": r"image_process",
        "run frozen encoders": r"_Vision\.features|\.encode \(vsre/model|vision_tower|CLIPVision\w+\.forward",
        "feature cache, disk": r"FeatureCache|use_features",
        "batches": r"Collator|get_batch_samples|PackSampler|DataLoader",
        "backward": r"Accelerator\.backward",
        "forward": r"compute_loss",
        "clip gradients": r"_clip_grad_norm|clip_grad_norm_",
        "optimizer": r"Optimizer\.step|AdamW\.step|_optimizer_step|zero_grad",
        "checkpoints and weights": r"_save_checkpoint|save_model|load_weights",
        "logs and curves": r"on_log|draw_curve|_maybe_log_save_evaluate|ConsoleProgress",
        "the Trainer itself": r"_inner_training_loop|VsreTrainer",
        "plan, freeze, fingerprints": r".",
    },
    "diagnose": {
        "decode pictures": r"load_image",
        "process pictures": r"Renderer\.prefix",
        "compare with the plain way": r"largest_difference",
        "prompts and answers as text": r"Renderer\.|\bask \(|\.prompt \(|askable",
        "pictures and prefixes": r"\bprefill \(|\.prefill \(",
        "likelihoods of yes and no": r"\.scores|dictate",
        "answers, token by token": r"\bdecode \(vsre/diagnose",
        "prompts' own tokens": r"Branches\.__init__|\bbranch \(",
        "read answers": r"to_sample|\.sample \(",
        "samples to disk": r"write_part|read_samples",
        "figures and intervals": r"summarise|blind_floor|bootstrap",
        "the engine itself": r"\.answer \(|_answer_group|_answer_chunk|answer_group",
        "plan and records": r".",
    },
}
COMMAND = "import sys; from vsre.cli import main; sys.argv = ['vsre', 'run', *sys.argv[1:]]; main()"


def record(recipe: str, source: Path | None, folder: Path, hertz: int) -> tuple[float, dict[str, list[str]]]:
    """Seconds of the run, and the main thread's sampled stacks: `all` of them, and in `python` those with the lock."""
    py_spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if py_spy is None:
        sys.exit("py-spy is not installed here: pip install py-spy")
    environment = os.environ | ({"PYTHONPATH": str(source.resolve())} if source else {})
    began = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, "-c", COMMAND, recipe, "--out", str(folder / "run")],
            env=environment, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
        watchers = [
            subprocess.Popen(
                [py_spy, "record", "--pid", str(run.pid), "--nonblocking", "--rate", str(hertz), "--format", "raw",
                 "--output", str(folder / name), flag],
                stdout=log, stderr=log,
            )
            for name, flag in (("all", "--idle"), ("python", "--gil"))
        ]  # fmt: skip
        code = run.wait()
        seconds = time.perf_counter() - began
        for watcher in watchers:
            watcher.wait()
    if code or any(watcher.returncode for watcher in watchers):
        sys.exit(f"the run or py-spy failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return seconds, {name: main_thread(folder / name) for name in ("all", "python")}


def main_thread(file: Path) -> list[str]:
    """Stacks of the main thread, one for every sample; incomplete ones, without a beginning, are left out."""
    stacks: list[str] = []
    for line in file.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        if stack.startswith("<module> (<string>"):
            stacks += [stack] * int(count)
    return stacks


def part_of(stack: str, parts: dict[str, str]) -> str:
    return next(name for name, pattern in parts.items() if re.search(pattern, stack))


def table(all_stacks: list[str], python: list[str], parts: dict[str, str], second: float) -> dict[str, Any]:
    """Part -> seconds, share of all, and the share of its seconds in which the interpreter ran. `second`: samples."""
    counts, held = (Counter(part_of(s, parts) for s in stacks) for stacks in (all_stacks, python))
    return {
        name: {
            "seconds": round(counts[name] / second, 1),
            "share": round(counts[name] / max(1, len(all_stacks)), 3),
            "python": round(min(1.0, held[name] / counts[name]), 2),
        }
        for name in parts
        if counts[name]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--recipe", default="demo", help="a recipe's name or file")
    parser.add_argument("--source", type=Path, help="the src folder of another checkout")
    parser.add_argument("--hertz", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        seconds, stacks = record(options.recipe, options.source, Path(name), options.hertz)
    second = len(stacks["all"]) / seconds  # samples actually taken per second: a busy machine misses some
    result: dict[str, Any] = {"seconds": round(seconds, 1), "samples": len(stacks["all"])}
    result["phases"] = table(stacks["all"], stacks["python"], PHASES, second)
    for phase, parts in PARTS.items():
        chosen = ([s for s in some if part_of(s, PHASES) == phase] for some in (stacks["all"], stacks["python"]))
        result[phase] = table(*chosen, parts, second)
    for title in ("phases", *PARTS):
        print(f"\n{title:<32}seconds   share  python")
        for row, found in result[title].items():
            print(f"{row:<32}{found['seconds']:>7.1f} {found['share']:>7.1%} {found['python']:>7.0%}")
    print(f"\n{seconds:.1f} s in all, {result['samples']} samples")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
