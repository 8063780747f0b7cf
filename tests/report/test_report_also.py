"""Further test sets in the report: the table, and the comparison scene by scene."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_fakes import make_run, make_triplets

from vsre.report import ReportMeta, ReportRun, as_json, write_report
from vsre.report.also import also_rows, less_own
from vsre.report.compare import difference
from vsre.report.inputs import open_run
from vsre.triplets import Triplet

PACKS = {"pool": 3, "test-s": 1}


def opened(folder: Path, triplets: list[Triplet], skill: float, seed: int = 0) -> ReportRun:
    make_run(folder, folder.name, triplets, skill=skill, packs=PACKS, seed=seed)
    return ReportRun(name=folder.name, folder=folder)


@pytest.fixture
def triplets(tmp_path: Path) -> list[Triplet]:
    return make_triplets(tmp_path / "made", 60)


def test_the_same_scenes_are_compared_scene_by_scene(tmp_path: Path, triplets: list[Triplet]) -> None:
    other = [replace(t, image_id=f"other {t.image_id}") for t in triplets]
    own = open_run(opened(tmp_path / "own", triplets, 1.5))
    further = open_run(opened(tmp_path / "further", other, 0.3, seed=1))
    same_pictures = open_run(opened(tmp_path / "alike", triplets, 0.3, seed=1))
    alike = {f"other {t.image_id}": t.image_id for t in triplets}
    found = less_own(own, further, alike)
    assert set(found) == {"test_s", "test_g"}
    for headline, less in found.items():
        paired = difference(own, same_pictures, headline)
        assert paired is not None and less["value"] == pytest.approx(paired.value) and less["high"] < 0  # type: ignore[operator]
    assert found["test_g"]["n"] == 3 * len(triplets)

    half = dict(list(alike.items())[:10])
    fewer = [t for t in other if t.image_id in half]
    part = less_own(own, open_run(opened(tmp_path / "fewer", fewer, 0.3)), half)
    assert part["test_s"]["n"] == len(fewer), "a smaller set is compared with its own scenes only"
    assert less_own(own, further, {"nothing": "alike"}) == {}


def test_a_table_of_models_and_sets(tmp_path: Path, triplets: list[Triplet]) -> None:
    further = opened(tmp_path / "further", triplets, 0.4)
    about = {
        "how": {"split": "caption-disjoint", "test_style": "openmoji", "test_as": ["test", 0]},
        "objects": {"2": 30},
        "captions": 60,
        "captions_in_train": 2,
        "classes": 8,
        "classes_in_train": 8,
        "less_own": {"test_g": {"value": -0.1, "low": -0.2, "high": -0.05, "n": 180}},
    }
    file = further.folder / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"also": about}))
    run = opened(tmp_path / "own", triplets, 1.0).model_copy(update={"also": {"<i>art": further.folder}})
    plain = opened(tmp_path / "plain", triplets, 1.0)
    (row,), (told,) = also_rows([open_run(run), open_run(plain)])
    assert row["model"] == "own" and row["own test set"].endswith(", n 180")
    assert row["<i>art"].endswith("; −10.0 [−20.0, −5.0] on the same scenes")
    assert told["captions in the train split"] == "2 of 60" and told["things in a picture"] == "2 in 30"
    page = write_report(tmp_path / "page.html", [run, plain], ReportMeta()).read_text()
    assert "&lt;i&gt;art" in page and "<i>art" not in page
    with_sets, without = as_json([run, plain])
    assert with_sets["also"]["<i>art"]["less_own"]["test_g"]["value"] == -0.1 and "also" not in without
    assert 'id="also"' not in write_report(tmp_path / "plain.html", [plain], ReportMeta()).read_text()
