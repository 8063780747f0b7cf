"""Small copies of every benchmark in its own format, with questions and pictures of our own making."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark_files import (
    base64_of,
    drawing,
    encoded,
    hub_image,
    picture,
    save,
    write_json,
    write_parquet,
    write_tsv,
)

from vsre.benchmarks import BENCHMARKS, Item
from vsre.diagnose import Reply, Score

# ---- each benchmark, as it is distributed -------------------------------------------------------------------------


def mme_folder(root: Path, pictures: int = 3) -> Path:
    """The release's layout, with another category beside the one that is wanted."""
    for i in range(pictures):
        save(root / "position" / f"{i:04d}.png", picture(i))
        side, other = ("left", "right") if i % 2 else ("right", "left")
        lines = [
            f"Is the square {side} of the disc? Please answer yes or no.\tYes",
            f"Is the square {other} of the disc? Please answer yes or no.\tNo",
        ]
        save(root / "position" / f"{i:04d}.txt", ("\n".join(lines) + "\n").encode())
    save(root / "color" / "0001.png", picture(90))
    save(root / "color" / "0001.txt", b"Is the square red? Please answer yes or no.\tYes\n")
    return root


def mmbench_rows(question: int, options: Sequence[str], answer: int, **more: Any) -> list[dict[str, Any]]:
    """A question with all its turns: the first row holds the picture, the others refer to it."""
    rows = []
    for turn in range(len(options)):
        turned = [options[(i + turn) % len(options)] for i in range(len(options))]
        rows.append(
            {
                "index": question + turn * 1_000_000,
                "question": f"Where is the disc of drawing {question}?",
                "hint": "",
                **{letter: turned[i] if i < len(turned) else "" for i, letter in enumerate("ABCD")},
                "answer": "ABCD"[(answer - turn) % len(options)],
                "category": "spatial_relationship",
                "image": base64_of(picture(question)) if not turn else str(question),
                "l2-category": "relation_reasoning",
                "source": "ours",
                "split": "dev",
                **more,
            }
        )
    return rows


FOUR = ("left of the square", "right of the square", "above the square", "below the square")


def mmbench_tsv(path: Path, questions: int = 3) -> Path:
    rows = [row for q in range(questions) for row in mmbench_rows(q, FOUR, q % 4)]
    rows += mmbench_rows(50, ("on the left", "on the right"), 1, category="object_localization", hint="Look well.")
    rows += mmbench_rows(60, ("red", "blue"), 0, category="color_perception")
    rows += mmbench_rows(70, ("up", "down"), 1, category="physical_relation")
    return write_tsv(path, rows)


def seed_questions(n: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "answer": "ABCD"[i % 4],
            **{f"choice_{c}": f"{what} of drawing {i}" for c, what in zip("abcd", FOUR, strict=True)},
            "data_id": f"{i // 2}_770{i // 2}",
            "data_source": "cc3m",
            "data_type": "Single Image",
            "level": "L1",
            "question": f"Where is the disc of drawing {i}?",
            "question_id": f"{(4, 6)[i % 2]}_{i}",
            "question_type_id": (4, 6)[i % 2],
            "subpart": "Single-Image & Text Comprehension",
            "version": "v1",
        }
        for i in range(n)
    ]


def seed_folder(root: Path, questions: list[dict[str, Any]] | None = None) -> Path:
    questions = seed_questions() if questions is None else questions
    other = {**seed_questions(1)[0], "question_type_id": 5, "question_id": "5_0"}
    types = {"Instance Location": 4, "Instances Counting": 5, "Spatial Relation": 6}
    write_json(root / "SEED-Bench_v2_level1_2_3.json", {"questions": [other, *questions], "question_type": types})
    for question in questions:
        if isinstance(name := question["data_id"], str):
            save(root / "cc3m-image" / name, picture(int(name.split("_")[0])))
    return root


def whatsup_folder(root: Path) -> Path:
    """One set of four of Controlled A, a lone pair of Controlled B, two COCO and two GQA rows."""

    def controlled(folder: str, first: str, relations: Mapping[str, str], second: str, start: int) -> list[Any]:
        rows = []
        for i, relation in enumerate(relations):
            name = f"{first}_{relation}_{second}.jpeg"
            save(root / folder / name, encoded(drawing(start + i), "JPEG"))
            said = [relation, *(r for r in relations if r != relation)]
            captions = [f"A {first} {relations[r]} a {second}" for r in said]
            rows.append({"image_path": f"data/{folder}/{name}", "caption_options": captions})
        return rows

    a = {"on": "on", "under": "under", "left_of": "to the left of", "right_of": "to the right of"}
    b = {"in-front_of": "in front of", "behind": "behind", "left_of": "to the left of", "right_of": "to the right of"}
    write_json(root / "controlled_images_dataset.json", controlled("controlled_images", "mug", a, "table", 10))
    write_json(root / "controlled_clevr_dataset.json", controlled("controlled_clevr", "cup", b, "bowl", 20)[:2])
    for name, folder, number in (("coco", "val2017", 391895), ("vg", "vg_images", 2317538)):
        stem = str(number).zfill(12) if name == "coco" else str(number)
        save(root / folder / f"{stem}.jpg", encoded(drawing(number % 50), "JPEG"))
        pair = ["A photo of a bird on the left", "A photo of a bird on the right"]
        write_json(root / f"{name}_qa_one_obj.json", [[number, *pair]])
        pair = ["A photo of a bird above a boat", "A photo of a bird below a boat"]
        write_json(root / f"{name}_qa_two_obj.json", [[number, *pair]])
    return root


def cvbench_rows() -> list[dict[str, Any]]:
    """Relation on ADE20K (2) and COCO (1), Depth and Distance on Omni3D (2), and a Count that is left out."""
    told = [
        ("2D", "Relation", "ADE20K", ("left", "right"), "(A)"),
        ("2D", "Relation", "ADE20K", ("above", "below"), "(B)"),
        ("2D", "Relation", "COCO", ("left", "right"), "(B)"),
        ("2D", "Count", "COCO", ("1", "2", "3"), "(C)"),
        ("3D", "Depth", "Omni3D", ("disc", "square"), "(A)"),
        ("3D", "Distance", "Omni3D", ("the disc", "the square", "the line"), "(C)"),
    ]
    rows = []
    for i, (kind, task, source, choices, answer) in enumerate(told):
        question = f"Drawing {i}: which is it?"
        shown = "\n".join(f"({letter}) {choice}" for letter, choice in zip("ABC", choices, strict=False))
        rows.append(
            {
                "idx": i,
                "type": kind,
                "task": task,
                "image": hub_image(i),
                "question": question,
                "choices": list(choices),
                "answer": answer,
                "prompt": f"{question} Select from the following choices.\n{shown}",
                "filename": f"{kind}/{i}.png",
                "source": source,
                "source_dataset": f"{source} val",
                "target_size": None,
            }
        )
    return rows


def cvbench_folder(root: Path) -> Path:
    for kind in ("2D", "3D"):
        rows = [row for row in cvbench_rows() if row["type"] == kind]
        write_parquet(root / f"test_{kind.lower()}.parquet", rows)
    return root


def blink_rows(task: str, n: int = 2, **more: Any) -> list[dict[str, Any]]:
    choices = ["yes", "no"] if task == "Spatial_Relation" else ["A is closer", "B is closer"]
    shown = "\n".join(f"({letter}) {choice}" for letter, choice in zip("AB", choices, strict=True))
    return [
        {
            "idx": f"val_{task}_{i + 1}",
            "sub_task": task,
            "question": f"Drawing {i}: is it so?",
            "image_1": hub_image(i + (0 if task == "Spatial_Relation" else 30)),
            "image_2": None,
            "choices": choices,
            "answer": "(A)" if i % 2 else "(B)",
            "prompt": f"Drawing {i}: is it so?\nSelect from the following choices.\n{shown}",
            **more,
        }
        for i in range(n)
    ]


def blink_folder(root: Path) -> Path:
    for task in ("Spatial_Relation", "Relative_Depth"):
        write_parquet(root / task / "val-00000-of-00001.parquet", blink_rows(task))
        write_parquet(root / task / "test-00000-of-00001.parquet", blink_rows(task, answer="hidden"))
    write_parquet(root / "Counting" / "val-00000-of-00001.parquet", blink_rows("Counting"))
    return root


def embspatial_rows(n: int = 4) -> list[dict[str, Any]]:
    relations = ("close", "far", "under", "left", "above", "right")
    return [
        {
            "data_source": "ours",
            "scene_id": f"room{i}",
            "question_id": f"ours_{i}",
            "question": f"{chr(39) * (i == 2)}Which thing of drawing {i} is at the shortest distance?",
            "relation": relations[i % 6],
            "image": base64_of(encoded(drawing(i // 2), "JPEG")),
            "answer_options": ["garden chair", "lamp", "table lamp", "rug"],
            "answer": i % 4,
            "objects": [{"name": "lamp", "bbox": [1, 2, 3, 4]}],
        }
        for i in range(n)
    ]


def embspatial_json(path: Path) -> Path:
    return write_json(path, embspatial_rows())


WRITERS: dict[str, Callable[[Path], Path]] = {
    "mme": lambda root: mme_folder(root / "MME_Benchmark"),
    "mmbench": lambda root: mmbench_tsv(root / "mmbench_dev_en.tsv"),
    "mmbench-physical": lambda root: mmbench_tsv(root / "mmbench_dev_en.tsv"),
    "seed-bench-2": lambda root: seed_folder(root / "seed"),
    "whats-up": lambda root: whatsup_folder(root / "data"),
    "cv-bench": lambda root: cvbench_folder(root / "CV-Bench"),
    "blink": lambda root: blink_folder(root / "BLINK"),
    "embspatial": lambda root: embspatial_json(root / "embspatial_bench.json"),
}


# ---- answers ------------------------------------------------------------------------------------------------------


def load(name: str, path: Path, **more: Any) -> list[Item]:
    return list(BENCHMARKS[name].load(path, **more))


def said(items: Iterable[Item], rule: Callable[[Item], str | Reply]) -> dict[str, dict[str, Reply]]:
    """Generated answers to all items."""
    answers = {item.key: rule(item) for item in items}
    return {"generate": {k: a if isinstance(a, Reply) else Reply(a) for k, a in answers.items()}}


def ranked(items: Iterable[Item], rule: Callable[[Item], Sequence[Score]]) -> dict[str, dict[str, Reply]]:
    return {"likelihood": {item.key: Reply(None, tuple(rule(item))) for item in items}}


def right(item: Item) -> str:
    assert item.answer is not None
    return item.names[item.answer]


def wrong(item: Item) -> str:
    assert item.answer is not None
    return item.names[(item.answer + 1) % len(item.options)]


def values(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: figure["value"] for name, figure in figures.items()}
