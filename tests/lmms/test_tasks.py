"""The tasks for lmms-eval without lmms-eval: their files, and the functions that it calls with plain objects."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from datasets import Dataset, load_dataset
from diagnose_data import Scripted, make_triplets, write_data
from typer.testing import CliRunner

from vsre.cli import app
from vsre.diagnose import Decoding, Reply, diagnose, load_run
from vsre.errors import VsreError
from vsre.lmms import scoring
from vsre.lmms.scoring import COLUMNS, FAILED, FIGURES, Heard, figure, of_group, of_task
from vsre.lmms.taskpack import write_tasks
from vsre.lmms.testset import write_testset
from vsre.sources.images import load_image


class Functions(yaml.SafeLoader):
    """Reads `!function utils.x` as lmms-eval's loader finds it."""


Functions.add_constructor("!function", lambda loader, node: ("function", loader.construct_scalar(node)))


def read_task(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text("utf-8"), Loader=Functions)


def load_utils(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tasks(testset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tasks")
    write_tasks(testset_folder, out)
    return out


def docs_of(task: dict[str, Any], cache: Path) -> Any:
    """A task's questions as lmms-eval loads them."""
    return load_dataset(
        task["dataset_path"], task["dataset_name"], cache_dir=str(cache), split="test", **task["dataset_kwargs"]
    )


def fickle(prompt: Any) -> Reply:
    """Says yes, no, both or nothing, by a sum of the prompt's letters; some prompts break it."""
    draw = sum(prompt.text.encode()) % 11
    yes, no = prompt.options
    if draw == 10:
        return Reply(error="broken")
    text = {8: f"{yes}, or {no}", 9: ""}.get(draw, yes if draw % 3 else no)
    return Reply.yes_no(text, -0.1, -2.0)


def evaluate(folder: Path, name: str, cache: Path, answer: Any) -> dict[str, float]:
    """What lmms-eval does with a task or group, in a few lines: {metric: figure}."""
    utils = load_utils(folder)

    def function(said: tuple[str, str]) -> Any:
        return getattr(utils, said[1].removeprefix("utils."))

    config = read_task(folder / f"{name}.yaml")
    if "group" in config:
        parts = {task: evaluate(folder, task, cache, answer) for task in config["task"]}
        return {
            m["metric"]: function(m["aggregation"])(
                [found[m["metric"]] for found in parts.values()], [1] * len(parts), m["weight_by_size"]
            )
            for m in config["aggregate_metric_list"]
        }
    docs = function(config["process_docs"])(docs_of(config, cache))
    values: dict[str, list[Any]] = {}
    for doc in docs:
        said = answer(function(config["doc_to_text"])(doc), doc)
        for metric, value in function(config["process_results"])(doc, [said]).items():
            values.setdefault(metric, []).append(value)
    listed = {m["metric"]: function(m["aggregation"]) for m in config["metric_list"]}
    assert values.keys() == listed.keys()
    return {metric: listed[metric](found) for metric, found in values.items()}


@pytest.mark.parametrize(
    ("task", "pack", "headline"),
    [("vsre_test_s", "test-s", "test_s"), ("vsre_test_g", "pool", "test_g"), ("vsre_unseen", "held-out", "unseen")],
)
def test_figures_are_those_of_a_diagnosis(
    tasks: Path, triplets_folder: Path, tmp_path: Path, task: str, pack: str, headline: str
) -> None:
    """Yes, no, both, nothing and errors, in short and full wordings: the same figures to the last digit."""
    metrics = diagnose(Scripted(fickle), triplets_folder, [pack], tmp_path / "run", progress=False)
    replies = {(r["key"], r["template"]): r for r in load_run(tmp_path / "run").samples.to_pylist()}

    def answer(prompt: str, doc: dict[str, Any]) -> str:
        reply = replies[doc["key"], doc["template"]]
        assert prompt == reply["prompt"]
        return FAILED if reply["error"] else (reply["answer"] or "").strip()  # lmms-eval strips answers

    found = evaluate(tasks, task, tmp_path / "cache", answer)
    wanted = metrics[headline]
    assert metrics["errors"] or task != "vsre_test_g"
    expected = {
        "acc_t": wanted["acc_t"]["value"],
        "ci95_low": wanted["acc_t"]["low"],
        "ci95_high": wanted["acc_t"]["high"],
        "answered": wanted["answered"]["value"],
        "yes_acc": wanted["yes_acc"]["value"],
        "no_acc": wanted["no_acc"]["value"],
        "bias": wanted["absolute_bias"]["value"],
        "signed_gap": wanted["bias"]["value"],
        "errors": metrics["errors"],
    }
    if task != "vsre_test_s":
        expected |= {
            "consistency": metrics["consistency"]["pairwise"]["value"],
            "all_agree": metrics["consistency"]["all_agree"]["value"],
            "lowest_template": wanted["acc_t_over_templates"]["min"],
            "highest_template": wanted["acc_t_over_templates"]["max"],
        }
    assert found == expected
    if task == "vsre_test_g":
        halves = [evaluate(tasks, f"{task}_{s}", tmp_path / "cache", answer) for s in ("short", "full")]
        by_template = {m: float(v) for half in halves for m, v in half.items() if m.startswith("by_template/")}
        assert by_template == {f"by_template/{t['template']}": t["acc_t"]["value"] for t in metrics["templates"]}
        assert halves[0]["acc_t"] != found["acc_t"] != halves[1]["acc_t"]


def test_task_files(tasks: Path, testset_folder: Path) -> None:
    short, full, single = (read_task(tasks / f"vsre_{n}.yaml") for n in ("test_g_short", "test_g_full", "test_s"))
    assert [t["generation_kwargs"]["max_new_tokens"] for t in (short, full, single)] == [16, 64, 16]
    for task in (short, full, single):
        assert task["dataset_path"] == str(testset_folder) and task["test_split"] == "test"
        assert task["dataset_kwargs"]["columns"] == list(COLUMNS)  # no pictures: `datasets` would unpack each
        assert task["generation_kwargs"]["until"] == [] and task["generation_kwargs"]["do_sample"] is False
        assert task["cluster_key"] == "image_id"
    names = [m["metric"] for m in single["metric_list"]]
    assert {"acc_t", "answered", "yes_acc", "no_acc", "bias"} <= set(names) and "consistency" not in names
    assert sum(m["metric"].startswith("by_template/") for m in short["metric_list"]) == 36
    group = read_task(tasks / "vsre_test_g.yaml")
    assert group["task"] == ["vsre_test_g_short", "vsre_test_g_full"]
    assert "consistency" in {m["metric"] for m in group["aggregate_metric_list"]}
    # lmms-eval's groups take any metric whose name contains the wanted one
    every = {m["metric"] for task in (short, full) for m in task["metric_list"]}
    assert not [(a, b) for a in FIGURES for b in every if a in b and a != b]


def test_every_function_named_is_there(tasks: Path) -> None:
    utils = load_utils(tasks)
    named = {line.split("utils.")[1].strip("' ") for f in tasks.glob("*.yaml") for line in f.read_text().splitlines()
             if "!function" in line}  # fmt: skip
    assert len(named) > 20 and all(callable(getattr(utils, name)) for name in named)


def test_limits_follow_the_decoding(testset_folder: Path, tmp_path: Path) -> None:
    made = write_tasks(testset_folder, tmp_path, decoding=Decoding(short_tokens=5, full_tokens=99))
    assert made["tasks"]["vsre_test_g_full"]["max_new_tokens"] == 99
    assert read_task(tmp_path / "vsre_test_s.yaml")["generation_kwargs"]["max_new_tokens"] == 5


def test_pictures_come_as_the_model_is_shown_them(tasks: Path, triplets_folder: Path, tmp_path: Path) -> None:
    utils = load_utils(tasks)
    by_key = {t.key: t.image for t in make_triplets(6)}
    docs = docs_of(read_task(tasks / "vsre_test_g_full.yaml"), tmp_path)
    assert "image" not in docs.column_names
    for doc in docs.select(range(0, 600, 41)):
        (shown,) = utils.doc_to_visual(doc)
        assert shown.mode == "RGB" and shown.tobytes() == load_image(by_key[doc["key"]]).tobytes()


def test_tasks_over_the_hub_name_the_repository(
    testset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(testset_folder))
    write_tasks("owner/name", tmp_path)
    assert read_task(tmp_path / "vsre_test_s.yaml")["dataset_path"] == "owner/name"
    assert "Pictures('owner/name')" in (tmp_path / "utils.py").read_text()


def a_doc(**changes: Any) -> dict[str, Any]:
    doc = {
        "id": "k/t", "prompt": "Is the cat left of the dog?", "answer": "Yes", "truth": True, "format": "yes-no",
        "style": "short", "template": "t", "pack": "pool", "subject": "cat", "relation": "left of", "object": "dog",
        "meta_category": "projective", "caption": "The cat is left of the dog.", "key": "k", "image_id": "i",
    }  # fmt: skip
    return doc | changes


@pytest.mark.parametrize(
    ("answer", "reading", "score"),
    [
        ("Yes", "yes", 1.0),
        ("**No**, it is not", "no", 0.0),
        ("The answer is yes", "yes", 1.0),
        ("Now I see: yes", "yes", 1.0),
        ("The cat is left of the dog.", "yes", 1.0),
        ("yes\nno", "unanswered", 0.0),
        ("", "unanswered", 0.0),
        (None, "unanswered", 0.0),
        ("Cannot tell", "unanswered", 0.0),
        (FAILED, "error", None),
    ],
)
def test_an_answer_is_read_as_ours_are(answer: str | None, reading: str, score: float | None) -> None:
    told = scoring.process_results(a_doc(), [answer])["acc_t"]  # type: ignore[list-item]
    assert told["reading"] == reading and told.get("score") == told.get("acc_t") == score
    json.dumps(told)


def test_log_lines_stay_short() -> None:
    values = scoring.process_results(a_doc(), ["Yes"])
    assert {str(v) for name, v in values.items() if name != "acc_t"} == {"yes"}
    assert isinstance(values["answered"], Heard) and "by_template/t" in values


def test_figures_of_nothing_are_not_numbers() -> None:
    row = scoring.process_results(a_doc(), ["Yes"])["acc_t"]
    assert math.isnan(figure("no_acc", [row])) and figure("yes_acc", [row]) == 1.0
    failed = scoring.process_results(a_doc(), [FAILED])["acc_t"]
    assert math.isnan(figure("acc_t", [failed])) and figure("errors", [failed]) == 1
    half = of_task("consistency")([row])
    other = of_task("consistency")([scoring.process_results(a_doc(template="u"), ["No"])["acc_t"]])
    assert math.isnan(half) and of_group("consistency")([half, other], [1, 1], True) == 0.0


def test_a_data_set_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(VsreError, match="the columns truth, image_id are missing"):
        rows = {name: value for name, value in a_doc().items() if name not in ("truth", "image_id")}
        scoring.process_docs(Dataset.from_list([rows]))


def test_styles_share_the_questions_out() -> None:
    docs = Dataset.from_list([a_doc(), a_doc(style="full", key="l"), a_doc(key="m")])
    assert scoring.short_docs(docs)["key"][:] == ["k", "m"] and scoring.full_docs(docs)["key"][:] == ["l"]


def test_without_vsre_the_tasks_say_so(tasks: Path) -> None:
    program = f"import sys; sys.modules['vsre'] = None; exec(open({str(tasks / 'utils.py')!r}).read())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode and "pip install -e" in done.stderr and "cannot be imported in the Python" in done.stderr


def test_template_ids_that_lmms_eval_would_mix_up_are_refused(triplets_folder: Path, tmp_path: Path) -> None:
    pack = tmp_path / "mine.yaml"
    pack.write_text(
        "name: mine\ntemplates:\n  - {id: no-bias, text: '{question} Answer yes or no.', format: yes-no}\n"
        "  - {id: b, text: '{question} Answer in a sentence.', format: yes-no, style: full}\n"
    )
    write_testset(triplets_folder, tmp_path / "set", [pack])
    with pytest.raises(VsreError, match="template no-bias contains the metric name bias"):
        write_tasks(tmp_path / "set", tmp_path / "tasks")
    assert not (tmp_path / "tasks").exists()


def test_templates_that_nobody_could_be_asked_make_no_task(tmp_path: Path) -> None:
    pack = tmp_path / "mine.yaml"
    pack.write_text(
        "name: mine\ntemplates:\n  - {id: a, text: '{question} Answer yes or no.', format: yes-no}\n"
        "  - {id: b, text: '{question} {subject_box} {object_box}', format: yes-no, style: full}\n"
    )
    data = write_data(tmp_path / "data", make_triplets(2, boxes=False))
    write_testset(data, tmp_path / "set", [pack])
    made = write_tasks(tmp_path / "set", tmp_path / "tasks")
    assert list(made["tasks"]) == ["vsre_mine"] and not made["groups"]


def test_the_verb(testset_folder: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "tasks", tmp_path / "made.json"
    result = CliRunner().invoke(app, ["lmms-eval", str(testset_folder), "--out", str(out), "--json", str(figures)])
    assert result.exit_code == 0, result.output
    assert "--tasks vsre_test_s,vsre_test_g,vsre_unseen" in result.output and "exits 0" in result.output
    assert json.loads(figures.read_text())["groups"]["vsre_unseen"] == ["vsre_unseen_short", "vsre_unseen_full"]
    (out / "vsre_old.yaml").write_text("task: vsre_old\n")
    assert CliRunner().invoke(app, ["lmms-eval", str(testset_folder), "--out", str(out)]).exit_code == 0
    assert not (out / "vsre_old.yaml").exists()
    for wrong, place, says in (
        (tmp_path, out, "no test set here"),
        (testset_folder, testset_folder, "something else than tasks"),
    ):
        refused = CliRunner().invoke(app, ["lmms-eval", str(wrong), "--out", str(place)])
        assert isinstance(refused.exception, VsreError) and says in str(refused.exception)
