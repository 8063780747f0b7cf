"""The whole of lmms-eval over our tasks: the answers and scores of `vsre diagnose`.

Skipped where lmms-eval is not installed; VSRE_LMMS_PYTHON may name a Python that has it, and vsre.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from diagnose_data import make_triplets, strong_llava, write_data

from vsre.lmms.taskpack import write_tasks
from vsre.lmms.testset import write_testset

WHY = "lmms-eval is not installed in this Python (docs/lmms-eval.md says how it is)"
PYTHON = os.environ.get("VSRE_LMMS_PYTHON", sys.executable)


def has_lmms_eval() -> bool:
    ask = "import importlib.util as u, sys; sys.exit(not (u.find_spec('lmms_eval') and u.find_spec('vsre')))"
    return subprocess.run([PYTHON, "-c", ask], check=False).returncode == 0


def run_lmms_eval(out: Path, model: str, arguments: str, tasks: Path, names: str) -> dict[str, Any]:
    """Its command line; the content of the results file, and under "samples" the lines of its logs."""
    command = [
        PYTHON, "-m", "lmms_eval", "--model", model, "--model_args", arguments, "--include_path", str(tasks),
        "--tasks", names, "--batch_size", "1", "--log_samples", "--output_path", str(out),
    ]  # fmt: skip
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hf"), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    files = list(out.glob("*/*_results.json"))
    assert files, (done.stdout + done.stderr)[-4000:]  # a failed run exits 0
    found: dict[str, Any] = json.loads(files[0].read_text())
    found["samples"] = [json.loads(line) for f in out.glob("*/*_samples_*.jsonl") for line in f.open()]
    return found


DIAGNOSE = textwrap.dedent("""
    import sys, json
    from vsre.diagnose import TransformersEngine, diagnose, load_run, summarise
    model, data, out, *packs = sys.argv[1:]
    told = {}
    for pack in packs:
        diagnose(TransformersEngine(model, device="cpu"), data, [pack], f"{out}/{pack}", progress=False)
        run = load_run(f"{out}/{pack}")
        told[pack] = {"metrics": run.metrics, "samples": run.samples.select(
            ["key", "template", "answer", "reading"]).to_pylist()}
    print(json.dumps(told))
""")


@pytest.mark.slow
@pytest.mark.skipif(not has_lmms_eval(), reason=WHY)
@pytest.mark.parametrize("backend", ["llava_hf", "vsre", "zoo:vsre"])
def test_the_same_answers_and_scores_as_vsre_diagnose(tmp_path: Path, backend: str) -> None:
    """lmms-eval's own backend and ours, on a LLaVA and on the shipped VSRE, each in one Python with `vsre diagnose`
    (where torchvision is installed, transformers resizes pictures by it, a little otherwise than by Pillow)."""
    data = write_data(tmp_path / "data", make_triplets(4))
    model = "zoo:vsre" if backend == "zoo:vsre" else str(strong_llava(tmp_path))
    write_testset(data, tmp_path / "set")
    write_tasks(tmp_path / "set", tmp_path / "tasks")
    arguments = f"pretrained={model},device=cpu" + (",device_map=cpu" if backend == "llava_hf" else "")
    names = "vsre_test_s,vsre_test_g,vsre_unseen"
    found = run_lmms_eval(tmp_path / "out", backend.removeprefix("zoo:"), arguments, tmp_path / "tasks", names)
    command = [PYTHON, "-c", DIAGNOSE, model, str(data), str(tmp_path / "runs"), "test-s", "pool", "held-out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours = json.loads(done.stdout.splitlines()[-1])
    said = {(s["acc_t"]["key"], s["acc_t"]["template"]): s for s in found["samples"]}
    wanted = {(s["key"], s["template"]): s for run in ours.values() for s in run["samples"]}
    assert said.keys() == wanted.keys() and len(said) == 8 * 63
    assert {k: s["filtered_resps"] for k, s in said.items()} == {k: s["answer"].strip() for k, s in wanted.items()}
    assert {k: s["acc_t"]["reading"] for k, s in said.items()} == {k: s["reading"] for k, s in wanted.items()}
    assert len({s["answer"] for s in wanted.values()}) > 3
    for task, pack, headline in (
        ("vsre_test_s", "test-s", "test_s"),
        ("vsre_test_g", "pool", "test_g"),
        ("vsre_unseen", "held-out", "unseen"),
    ):
        figures, metrics = found["results"][task], ours[pack]["metrics"]
        assert figures["acc_t,none"] == metrics[headline]["acc_t"]["value"]
        assert figures["answered,none"] == metrics[headline]["answered"]["value"]
        assert figures["bias,none"] == metrics["bias"]["value"]
        if task != "vsre_test_s":
            assert figures["consistency,none"] == metrics["consistency"]["pairwise"]["value"]


MULTIPLE_CHOICE = """\
task: choice
dataset_path: {data}
dataset_name: test_s
test_split: test
output_type: multiple_choice
doc_to_visual: image
doc_to_text: prompt
doc_to_target: "{{{{ 0 if truth else 1 }}}}"
doc_to_choice: ["Yes", "No"]
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@pytest.mark.slow
@pytest.mark.skipif(not has_lmms_eval(), reason=WHY)
def test_tasks_by_likelihood_end_in_figures(tmp_path: Path) -> None:
    """Which they do with none of lmms-eval 0.7.3's own models: the likelier of two options, as we have it."""
    data = write_data(tmp_path / "data", make_triplets(4))
    write_testset(data, tmp_path / "set", ["test-s"])
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "choice.yaml").write_text(MULTIPLE_CHOICE.format(data=tmp_path / "set"))
    found = run_lmms_eval(tmp_path / "out", "vsre", "pretrained=zoo:vsre,device=cpu", tasks, "choice")
    command = [PYTHON, "-c", DIAGNOSE, "zoo:vsre", str(data), str(tmp_path / "runs"), "test-s"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    likelier = json.loads(done.stdout.splitlines()[-1])["test-s"]["metrics"]["likelihood"]["sum"]["test_s"]["value"]
    assert found["results"]["choice"]["acc,none"] == likelier
