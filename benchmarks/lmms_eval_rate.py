"""lmms-eval's own rate on the prompts of diagnose_speed.py: a task folder is written and its command line run.

Its start-up is left out: the task notes the time whenever a prompt's picture is requested, and the rate is that between
the first request and the last. Used by diagnose_speed.py; nothing here needs vsre.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TASK = "vsre_speed"
YAML = f"""\
task: {TASK}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {{data}}
  cache_dir: {{cache}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.results
generation_kwargs:
  max_new_tokens: {{tokens}}
  temperature: 0
  do_sample: false
metric_list:
  - metric: heard
    aggregation: !function utils.heard
    higher_is_better: true
"""
UTILS = """\
import io, json, time
from pathlib import Path
from PIL import Image

HERE = Path(__file__).parent

def visual(doc):
    with (HERE / "times.txt").open("a") as file:
        file.write(f"{time.time()}\\n")
    return [Image.open(io.BytesIO(doc["picture"])).convert("RGB")]

def text(doc):
    return doc["prompt"]

def results(doc, said):
    with (HERE / "said.jsonl").open("a") as file:
        file.write(json.dumps([doc["number"], said[0]]) + "\\n")
    return {"heard": 1.0}

def heard(values):
    return sum(values)
"""


def version(python: str) -> str | None:
    """The version of lmms-eval that this interpreter finds; None if it finds none."""
    ask = "import importlib.metadata as m; print(m.version('lmms_eval'))"
    found = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def measure(
    python: str,
    model: Path,
    folder: Path,
    asked: Sequence[tuple[bytes, str]],
    *,
    tokens: int,
    threads: int,
) -> tuple[float, dict[int, str]]:
    """(prompts per second, answers by the prompt's number) of the default LLaVA backend at its only batch size, 1.

    Raises RuntimeError with the end of its log if it fails; its exit status does not say so.
    """
    folder.mkdir(parents=True)
    rows = [{"number": n, "picture": p, "prompt": t, "answer": ""} for n, (p, t) in enumerate(asked)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "asked.parquet")
    (folder / f"{TASK}.yaml").write_text(
        YAML.format(data=folder / "asked.parquet", cache=folder / "datasets", tokens=tokens)
    )
    (folder / "utils.py").write_text(UTILS)
    command = [
        python, "-m", "lmms_eval", "--model", "llava_hf",
        "--model_args", f"pretrained={model},device=cpu,device_map=cpu", "--tasks", TASK, "--include_path", str(folder),
        "--batch_size", "1", "--output_path", str(folder / "out"),
    ]  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = folder / "said.jsonl"
    answers = dict(json.loads(line) for line in said.read_text().splitlines()) if said.is_file() else {}
    times_file = folder / "times.txt"
    times = [float(line) for line in times_file.read_text().split()] if times_file.is_file() else []
    if len(answers) != len(asked) or len(times) < len(asked) or not any(answers.values()):
        raise RuntimeError(
            f"lmms-eval answered {len(answers)} of {len(asked)} prompts:\n{(run.stdout + run.stderr)[-3000:]}"
        )
    times = times[-len(asked) :]
    return (len(asked) - 1) / (times[-1] - times[0]), answers
