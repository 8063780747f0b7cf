"""SEED-Bench-2 and What's Up: choices ranked by likelihood, under three normalisations, and by generation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_data import (
    hub_image,
    load,
    picture,
    ranked,
    right,
    said,
    save,
    seed_folder,
    seed_questions,
    values,
    whatsup_folder,
    write_json,
    write_parquet,
)

from vsre.benchmarks import BENCHMARKS, Item
from vsre.benchmarks.rows import Aside
from vsre.diagnose import Reply, Score
from vsre.errors import VsreError

SEED, WHATS_UP = BENCHMARKS["seed-bench-2"], BENCHMARKS["whats-up"]


def test_seed_s_spatial_dimensions(tmp_path: Path) -> None:
    items = load("seed-bench-2", seed_folder(tmp_path))
    assert [(i.key, i.category, i.answer) for i in items] == [
        ("4_0", "Instance Location", 0),
        ("6_1", "Spatial Relation", 1),
        ("4_2", "Instance Location", 2),
        ("6_3", "Spatial Relation", 3),
    ]
    assert items[0].picture.id == items[1].picture.id != items[2].picture.id
    assert items[2].picture.read() == picture(1)
    prompt = SEED.prompt(items[0], "likelihood")
    assert prompt.text == "Where is the disc of drawing 0?" and prompt.options == items[0].options
    assert (prompt.style, prompt.end) == ("none", True)
    asked = SEED.prompt(items[0], "generate")
    assert asked.options == ("A", "B", "C", "D") and "\nB. right of the square of drawing 0\n" in asked.text
    assert SEED.ways() == ("likelihood",) and SEED.ways("both") == ("generate", "likelihood")


def test_seed_pictures_under_another_folder_and_in_the_row(tmp_path: Path) -> None:
    seed_folder(tmp_path / "zip")
    questions = write_json(tmp_path / "apart" / "SEED-Bench_v2_level1_2_3.json", {"questions": seed_questions()})
    with pytest.raises(VsreError, match=r"none of its 4 rows can be used\.\n  4 x no such picture file"):
        load("seed-bench-2", questions)
    assert len(load("seed-bench-2", questions, images=[tmp_path / "zip"])) == 4
    assert len(load("seed-bench-2", questions, images=[tmp_path / "zip" / "cc3m-image"])) == 4
    with pytest.raises(VsreError, match="no such folder of pictures"):
        load("seed-bench-2", questions, images=[tmp_path / "gone"])
    rows = [{**q, "image": [hub_image(9)], "data_id": [q["data_id"]]} for q in seed_questions()]
    found = load("seed-bench-2", write_parquet(tmp_path / "hub.parquet", rows))
    assert len(found) == 4 and found[0].picture.read() == picture(9)


def test_seed_rows_that_cannot_be_used(tmp_path: Path) -> None:
    good = seed_questions(6)
    good[1]["data_id"] = ["task17/a.png", "task17/b.png"]
    good[2]["answer"] = "E"
    del good[3]["choice_d"]
    good[4]["choice_b"] = ""
    seed_folder(tmp_path, good)
    good[5]["data_id"] = "../../outside.jpg"
    aside = Aside()
    items = list(SEED.load(write_json(tmp_path / "SEED-Bench.json", {"questions": good}), aside=aside))
    assert [i.key for i in items] == ["4_0"]
    assert [(r["row"], r["reason"], r["detail"]) for r in aside.rows] == [
        (2, "not one picture", "2 pictures in the field"),
        (3, "the answer names no option", "'E' of 4 options"),
        (4, "lacks a field", "choice_d"),
        (5, "a choice is empty", "3 of 4"),
        (6, "the picture lies outside the data", "../../outside.jpg: use names under the data's folder"),
    ]


def test_seed_s_smallest_mean_loss_with_the_end_token(tmp_path: Path) -> None:
    """Four questions on which the three normalisations choose differently."""
    items = load("seed-bench-2", seed_folder(tmp_path))
    weak = Score(-90.0, 1, -9.0)

    def scores(best: Score, rival: Score, item: Item) -> list[Score]:
        told = [weak] * 4
        told[item.answer or 0], told[((item.answer or 0) + 1) % 4] = best, rival
        return told

    pairs = {
        "4_0": (Score(-4.0, 4, -0.1), Score(-2.0, 2, -3.0)),  # by mean with end -.82 to -1.67; mean equal; sum lower
        "6_1": (Score(-9.0, 9, -0.1), Score(-3.0, 2, -0.5)),  # -.91 to -1.17; mean -1 to -1.5; sum lower
        "4_2": (Score(-2.0, 4, -8.0), Score(-3.0, 4, -0.1)),  # -2 to -.62: wrong with the end; mean and sum right
        "6_3": (Score(-1.0, 1, -0.1), Score(-2.0, 1, -0.1)),
    }
    found = SEED.score(items, ranked(items, lambda i: scores(*pairs[i.key], i)))
    assert found["official_by"] == "likelihood"
    assert values(found["official"]) == {"accuracy": 3 / 4, "Instance Location": 1 / 2, "Spatial Relation": 1}
    assert values(found["readings"]["likelihood_mean"]["figures"])["accuracy"] == 1  # the tie goes to the earlier one
    assert values(found["readings"]["likelihood_sum"]["figures"])["accuracy"] == 2 / 4
    assert found["floor"]["chance"]["accuracy"] == 0.25
    results = SEED.export(items, ranked(items, lambda i: scores(*pairs[i.key], i)))["results.json"].splitlines()
    assert [json.loads(line) for line in results] == [
        {"question_id": k, "prediction": p} for k, p in (("4_0", "A"), ("6_1", "B"), ("4_2", "D"), ("6_3", "D"))
    ]


def test_seed_by_generation(tmp_path: Path) -> None:
    items = load("seed-bench-2", seed_folder(tmp_path))
    told = {"4_0": "a", "6_1": "The answer is (B)", "4_2": "above the square of drawing 2", "6_3": "I cannot tell."}
    found = SEED.score(items, said(items, lambda i: told[i.key]))
    assert values(found["readings"]["reading"]["figures"])["accuracy"] == 3 / 4
    assert found["readings"]["reading"]["answered"]["value"] == 3 / 4
    of_answered = found["readings"]["reading"]["accuracy_of_answered"]
    assert (of_answered["value"], of_answered["n"]) == (1.0, 3)
    assert found["official"] is None and "likelihood was not run" in found["missing"]["likelihood"]


def test_an_engine_without_likelihoods_scores_nothing(tmp_path: Path) -> None:
    items = load("seed-bench-2", seed_folder(tmp_path))
    without = {"likelihood": {i.key: Reply(None) for i in items}}
    found = SEED.score(items, without)
    assert found["official"] is None and found["missing"]["likelihood"] == "the engine gives no likelihoods"
    endless = ranked(items, lambda i: [Score(-1.0 - (k != i.answer), 1) for k in range(4)])
    found = SEED.score(items, endless)
    assert (
        "likelihood" not in found["readings"]
        and found["readings"]["likelihood_mean"]["figures"]["accuracy"]["value"] == 1
    )
    broken = ranked(items, lambda i: [Score(float("-inf"), 1, -1.0)] * 4)
    assert SEED.score(items, broken)["readings"] == {}


def test_whats_up_as_the_repository_has_it(tmp_path: Path) -> None:
    items = load("whats-up", whatsup_folder(tmp_path))
    assert len(items) == 4 + 2 + 4
    first = items[0]
    assert first.options[first.answer or 0] == "A mug on a table" and set(first.says) == {
        "on",
        "under",
        "left",
        "right",
    }
    assert {i.group for i in items[:4]} == {"Controlled A/mug/table"} and items[4].group == "Controlled B/cup/bowl"
    coco = [i for i in items if i.extra["subset"].startswith("COCO")]
    assert [i.options[i.answer or 0] for i in coco] == [
        "A photo of a bird on the left",
        "A photo of a bird above a boat",
    ]
    assert [i.picture.name for i in items if i.extra["subset"] == "GQA one object"] == ["2317538.jpg"]
    assert WHATS_UP.prompt(first, "likelihood").options == first.options
    # The right caption is the first in every file: in the prompt it must not be.
    assert len({i.answer for i in items}) > 1
    again = load("whats-up", tmp_path / "controlled_images_dataset.json")
    assert [i.parts() for i in again] == [i.parts() for i in items[:4]]


def test_whats_up_pairs_and_sets(tmp_path: Path) -> None:
    items = load("whats-up", whatsup_folder(tmp_path))
    slip = {"Controlled A/2", "COCO two objects/1"}  # under; above

    def scores(item: Item) -> list[Score]:
        chosen = item.answer if item.key not in slip else ((item.answer or 0) + 1) % len(item.options)
        return [Score(-3.0 if k == chosen else -7.0, 2, -0.5) for k in range(len(item.options))]

    found = WHATS_UP.score(items, ranked(items, scores))
    assert found["official_by"] == "likelihood_sum"
    assert values(found["official"]) == {
        "accuracy": pytest.approx(8 / 10),
        "Controlled A": 3 / 4,
        "Controlled B": 1,
        "COCO one object": 1,
        "COCO two objects": 0,
        "GQA one object": 1,
        "GQA two objects": 1,
        "Controlled mean": pytest.approx(7 / 8),
        "COCO mean": 0.5,
        "GQA mean": 1,
        "Controlled A pairs": 1 / 2,  # left and right
        "Controlled A sets": 0,
        "Controlled B pairs": 1,  # in front and behind; no set, as left and right are not there
    }
    assert found["warnings"] == ["sets without all four pictures, which are not in the share of sets: 1"]
    assert found["floor"]["chance"]["Controlled A sets"] == (1 / 4) ** 4
    assert found["floor"]["chance"]["Controlled A pairs"] == (1 / 4) ** 2
    assert "majority" not in found["floor"]  # where the right caption stands is ours
    assert found["floor"]["majority_text"]["COCO two objects"] in (0.5, 1.0)


def test_whats_up_by_generation_gives_nothing_to_a_model_that_says_a(tmp_path: Path) -> None:
    items = load("whats-up", whatsup_folder(tmp_path))
    says_a = WHATS_UP.score(items, said(items, lambda i: "A"))["readings"]["reading"]["figures"]["accuracy"]["value"]
    assert says_a == sum(i.answer == 0 for i in items) / len(items) < 1
    spoken = WHATS_UP.score(items, said(items, lambda i: f"{i.options[i.answer or 0]}."))
    assert spoken["readings"]["reading"]["figures"]["accuracy"]["value"] == 1


def test_whats_up_rows_that_cannot_be_used(tmp_path: Path) -> None:
    root = whatsup_folder(tmp_path)
    rows = json.loads((root / "controlled_images_dataset.json").read_text())
    rows[0]["image_path"] = "http://example.org/mug_on_table.jpeg"
    rows[1]["caption_options"] = ["the same", "the same"]
    del rows[2]["caption_options"]
    rows[3]["image_path"] = "data/controlled_images/gone.jpeg"
    write_json(root / "controlled_images_dataset.json", [*rows, "neither"])
    write_json(
        root / "coco_qa_one_obj.json", [[391895, "only one caption"], ["x", "a", "b"], [391895, "a left", "a right"]]
    )
    aside = Aside()
    items = list(WHATS_UP.load(root, aside=aside))
    assert [i.key for i in items if i.extra["subset"] == "COCO one object"] == ["COCO one object/3"]
    assert [r["reason"] for r in aside.rows] == [
        "the picture is a URL",
        "a caption is empty or stands twice",
        "lacks a field",
        "no such picture file",
        "lacks a field",
        "not an image id with two captions",
        "the image id is no number",
    ]


def test_whats_up_names_without_a_set(tmp_path: Path) -> None:
    save(tmp_path / "controlled_images" / "photo1.jpeg", picture(1))
    row = {"image_path": "data/controlled_images/photo1.jpeg", "caption_options": ["a on b", "a under b"]}
    items = load("whats-up", write_json(tmp_path / "controlled_images_dataset.json", [row]))
    found = WHATS_UP.score(items, said(items, right))
    assert set(found["readings"]["reading"]["figures"]) == {"accuracy", "Controlled A"}
    assert found["warnings"] == ["Controlled pictures whose names tell no set, which are in no pair or set: 1"]
    with pytest.raises(VsreError, match=r"none of controlled_images_dataset\.json.* here"):
        load("whats-up", tmp_path / "controlled_images")
