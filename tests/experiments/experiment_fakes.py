"""Experiments whose runs are made up: the folders that `vsre experiment run` leaves, without training anything."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from report_fakes import make_run, make_triplets

from vsre.experiments.files import Plan, load_experiment, plan_experiment
from vsre.experiments.run import _claim, recipe_folders
from vsre.recipes.steps import folder_name
from vsre.triplets import Triplet

PACKS = {"test-s": 1, "pool": 3, "held-out": 2}
STAGES = [{"use": "tune", "data": ["original"]}]
EXPERIMENT: dict[str, Any] = {
    "name": "fake",
    "title": "Two protocols",
    "question": "Does it | matter?",
    "reading": "It does if the difference leaves out 0.",
    "seeds": [0, 1],
    "recipe": {
        "data": {"original": {"pack": "test-s"}},
        "models": [
            {"name": "plain", "factors": {"steps": 0, "kind": "a"}, "start": {"use": "merged"}, "stages": STAGES},
            {"name": "tuned", "factors": {"steps": 9, "kind": "b"}, "start": {"use": "merged"}, "stages": STAGES},
        ],
    },
    "variants": {"clean": {}, "paper": {"protocol": "paper"}},
    "compare": [
        {"before": "clean: plain", "after": "clean: tuned"},
        {"before": "clean: tuned", "after": "paper: tuned"},
        {"before": "clean: plain", "after": "paper: tuned", "relations": ["left of"]},
    ],
    "plots": [
        {"kind": "dots", "name": "arms", "title": "Arms", "y": ["test_s.acc_t", "test_g.acc_t"]},
        {"kind": "lines", "name": "steps", "title": "Steps", "x": "steps", "y": ["test_g.acc_t"]},
        {"kind": "sensitivity", "name": "glance", "title": "At a glance"},
    ],
    "notes": ["A note."],
}
SKILLS = {("clean", "plain"): 0.0, ("clean", "tuned"): 2.0, ("paper", "plain"): 0.1, ("paper", "tuned"): 2.1}


def written(folder: Path, **changes: Any) -> Path:
    """The fake experiment as a file, with other values of some keys."""
    path = folder / "fake.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT | changes, sort_keys=False), encoding="utf-8")
    return path


def fake_plan(folder: Path, **changes: Any) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    return plan_experiment(load_experiment(str(written(folder, **changes))), command="vsre experiment run fake.yaml")


def fraction_plan(folder: Path, seeds: list[int], **changes: Any) -> Plan:
    """Eight arms of three factors, of which two and their interaction are asked for."""
    axes = {name: [{"name": f"{name}{on}", "factors": {name: on}} for on in (0, 1)] for name in ("a", "b", "c")}
    start = [{"start": {"use": "merged"}, "stages": STAGES}]
    fraction = {"runs": 8, "axes": axes | {"start": start}, "effects": ["a", "b", "a x b"]}
    asked: dict[str, Any] = {"recipe": {"data": {"original": {"pack": "test-s"}}}, "variants": {"main": {}}}
    return fake_plan(folder, **asked | {"seeds": seeds, "compare": [], "plots": [], "fraction": fraction} | changes)


def fake_runs(
    plan: Plan,
    out: Path,
    *,
    without: Collection[tuple[str, int, str]] = (),
    pictures: Any = lambda variant, seed: seed,
    skill: Any = lambda variant, model: SKILLS.get((variant, model.name), 1.0),
    statements: int = 60,
) -> None:
    """Run folders of a plan; `pictures` gives the number of the test set of a variant and seed."""
    _claim(plan, out)
    sets: dict[int, list[Triplet]] = {}
    for (variant, seed), (recipe, folder) in recipe_folders(plan, out).items():
        number = pictures(variant, seed)
        if number not in sets:
            sets[number] = make_triplets(out / "sets" / str(number), statements + 2 * number, seed=number)
        for at, model in enumerate(recipe.models):
            if (variant, seed, model.name) in without:
                continue
            run = folder / "runs" / folder_name(model.name)
            make_run(run, model.name, sets[number], skill=skill(variant, model), packs=PACKS, seed=100 * seed + at)
            cost = {"visual_tokens": 36 * (at + 1), "ms_image": 12.5, "train_seconds": 1800.0, "steps": 9}
            (run / "cost").mkdir()
            (run / "cost" / "step.json").write_text(json.dumps({"settings": {}, "summary": cost, "seconds": 0}))
