"""Tasks for lmms-eval over a test set: a folder of YAML files and a utils.py, for its `--include_path`.

lmms-eval sets the maximum tokens per answer for a whole task, vsre by a template's style. So a configuration that has
both styles becomes two tasks and a group over them, whose figures are computed from all answers together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import vsre
from vsre.diagnose.decoding import Decoding
from vsre.errors import VsreError
from vsre.lmms.folder import read_summary
from vsre.lmms.hub import hub_folder
from vsre.lmms.scoring import COLUMNS, FIGURES, template_metric

PREFIX = "vsre_"

UTILS = '''"""What the tasks beside this file call. Written by `vsre lmms-eval` of vsre {version}."""

try:
    from vsre.lmms.pictures import Pictures
    from vsre.lmms.scoring import (
        doc_to_target, doc_to_text, full_docs, of_group, of_task, process_docs, process_one_wording, process_results,
        short_docs,
    )
except ImportError as error:
    raise ImportError(
        "The vsre tasks read answers with vsre itself, and it cannot be imported in the Python that runs lmms-eval "
        f"({{error}}). Install vsre {version} there: pip install -e and the folder of its checkout."
    ) from error

PICTURES = Pictures({data!r})


def doc_to_visual(doc):
    return PICTURES.of(doc)


# The aggregations: of a task over its answers, of a group over those of all its tasks.
{aggregations}
'''


class _Function(str):
    """The name of a function in utils.py, as written in lmms-eval's YAML."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", f"utils.{name}"))


def write_tasks(data: str | Path, out_dir: str | Path, *, decoding: Decoding | None = None) -> dict[str, Any]:
    """Write the tasks over the test set `data` (a folder of `vsre testset`, or its repository on the hub) to OUT_DIR.

    Returns {"data", "tasks": {task: {"templates", "style", "max_new_tokens"}}, "groups": {group: [task]}}. `decoding`
    holds the maximum tokens per answer, by style; the default is that of `vsre diagnose`. Raises VsreError for a folder
    that is not a test set, and if a pack's templates cannot be distinguished from the metrics.
    """
    local = Path(data).is_dir()
    source = str(Path(data).resolve()) if local else str(data)
    summary = read_summary(source if local else hub_folder(source))
    out = Path(out_dir)
    if out.is_dir() and any(out.iterdir()) and not (out / "utils.py").is_file():
        raise VsreError(f"{out}: holds something else than tasks. Give --out a new or empty folder.")
    files: dict[str, dict[str, Any]] = {}
    tasks: dict[str, Any] = {}
    groups: dict[str, list[str]] = {}
    for name, config in summary["configs"].items():
        templates = [t for t in config["templates"] if t["questions"]]
        styles = sorted({t["style"] for t in templates}, reverse=True)  # short first
        whole = PREFIX + name
        for style in styles:
            chosen = [t["id"] for t in templates if t["style"] == style]
            task = whole if len(styles) == 1 else f"{whole}_{style}"
            tokens = (decoding or Decoding()).limit(style)
            files[task] = _task(source, name, config["pack"], task, chosen, several=len(templates) > 1, tokens=tokens)
            if len(styles) > 1:
                files[task]["process_docs"] = _Function(f"{style}_docs")
            tasks[task] = {"templates": len(chosen), "style": style, "max_new_tokens": tokens}
        if len(styles) > 1:
            _refuse_mixed_up([t["id"] for t in templates], config["pack"])
            groups[whole] = [f"{whole}_{style}" for style in styles]
            files[whole] = _group(whole, groups[whole])
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{PREFIX}*.yaml"):
        old.unlink()
    for task, content in files.items():
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        (out / f"{task}.yaml").write_text(text, "utf-8")
    (out / "utils.py").write_text(_utils(source), "utf-8")
    return {"data": source, "tasks": tasks, "groups": groups}


def _task(
    source: str, config: str, pack: str, task: str, templates: list[str], *, several: bool, tokens: int
) -> dict[str, Any]:
    """A task's YAML. `several`: its configuration has more than one template, even if this task has only one."""
    names = [name for name, figure in FIGURES.items() if several or not figure.several]
    metrics = [_metric(name, f"task_{name}", FIGURES[name].higher_is_better) for name in names]
    if several:
        metrics += [_metric(template_metric(template), "task_acc_t", True) for template in templates]
    return {
        "task": task,
        "dataset_path": source,
        "dataset_name": config,
        "dataset_kwargs": {"columns": list(COLUMNS)},
        "test_split": "test",
        "process_docs": _Function("process_docs"),
        "output_type": "generate_until",
        "doc_to_visual": _Function("doc_to_visual"),
        "doc_to_text": _Function("doc_to_text"),
        "doc_to_target": _Function("doc_to_target"),
        "process_results": _Function("process_results" if several else "process_one_wording"),
        # Without `until`, lmms-eval would have answers cut at the first empty line.
        "generation_kwargs": {
            "max_new_tokens": tokens,
            "temperature": 0,
            "do_sample": False,
            "num_beams": 1,
            "until": [],
        },
        "cluster_key": "image_id",
        "score_key": "acc_t",
        "metric_list": metrics,
        "metadata": {"version": vsre.__version__, "pack": pack},
    }


def _metric(name: str, function: str, higher_is_better: bool | None) -> dict[str, Any]:
    return {"metric": name, "aggregation": _Function(function), "higher_is_better": higher_is_better}


def _group(group: str, tasks: list[str]) -> dict[str, Any]:
    return {
        "group": group,
        "task": tasks,
        "aggregate_metric_list": [
            {"metric": name, "aggregation": _Function(f"group_{name}"), "weight_by_size": True, "filter_list": "none"}
            for name in FIGURES
        ],
        "metadata": {"version": vsre.__version__},
    }


def _utils(source: str) -> str:
    lines = [f"{level}_{name} = of_{level}({name!r})" for name in FIGURES for level in ("task", "group")]
    return UTILS.format(version=vsre.__version__, data=source, aggregations="\n".join(lines))


def _refuse_mixed_up(templates: list[str], pack: str) -> None:
    """Raise VsreError for ids that contain a metric's name: lmms-eval's groups would mistake one for the other."""
    for template in templates:
        for name in FIGURES:
            if name in template:
                raise VsreError(
                    f"Pack {pack}: the id of template {template} contains the metric name {name}, and lmms-eval would "
                    "mix the two up. Rename the template and write the test set again."
                )
