"""LLaVA's training JSON: there and back without loss, and rows that cannot be used."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.rewrite import QUESTION_SCHEMA, read_questions
from vsre.sources.llava import read_llava_json, write_llava_json
from vsre.sources.llava_rows import Unusable, parse_row
from vsre.train import DataSource
from vsre.train.examples import ChatEncoder
from vsre.train.store import open_store
from vsre.triplets import ParquetShards, Triplet, image_content_id, read_triplets, write_triplets


def encoded(shade: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(out, kind)
    return out.getvalue()


def triplet(data: bytes | None, caption: str, name: str = "a.png") -> Triplet:
    return Triplet(
        image_id=image_content_id(data) if data else f"name:{name}",
        image_name=name,
        subject="cat",
        relation="left of",
        object="dog",
        caption=caption,
        label=True,
        split="train",
        origin="vsr",
        image=data,
        width=8,
        height=6,
    )


def question(of: Triplet, prompt: str, answer: str, template: str) -> dict[str, Any]:
    return {
        "key": of.key,
        "image_id": of.image_id,
        "template": template,
        "pack": "pool",
        "prompt": prompt,
        "answer": answer,
        "truth": True,
        "format": "yes-no",
        "split": "train",
    }


def write_world(folder: Path, asked: list[tuple[int, str, str]]) -> list[tuple[bytes, str, str]]:
    """Triplets and questions (shade of the picture, prompt, answer); returns picture, prompt and answer of each."""
    shades = sorted({shade for shade, _, _ in asked})
    triplets = {s: triplet(encoded(s, "JPEG" if s % 2 else "PNG"), f"The cat is left of the dog {s}.") for s in shades}
    write_triplets(folder / "triplets", triplets.values())
    with ParquetShards(folder / "questions", QUESTION_SCHEMA) as shards:
        for n, (shade, prompt, answer) in enumerate(asked):
            shards.write(question(triplets[shade], prompt, answer, f"t-{n}"))
    return [(triplets[shade].image or b"", prompt, answer) for shade, prompt, answer in asked]


def read_back(folder: Path) -> list[tuple[bytes, str, str]]:
    images = {t.key: t.image or b"" for t in read_triplets(folder / "triplets")}
    return [(images[q.key], q.prompt, q.answer) for q in read_questions(folder / "questions")]


words = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
    .map(str.strip)
    .filter(lambda text: text and "<image>" not in text)
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), words, words), min_size=1, max_size=12))
def test_there_and_back(asked: list[tuple[int, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wanted = write_world(folder, asked)
        summary = write_llava_json(folder / "questions", folder / "triplets", folder / "llava")
        pictures = len({data for data, _, _ in wanted})
        assert summary == {"questions": len(asked), "pictures": pictures}
        files = list((folder / "llava" / "images").iterdir())
        assert len(files) == pictures and {f.suffix for f in files} <= {".png", ".jpg"}
        read = read_llava_json(folder / "llava" / "llava.json", folder / "back", images=folder / "llava" / "images")
        assert read["set_aside"] == {} and read["questions"] == len(asked) and read["pictures"] == pictures
        assert read_back(folder / "back") == wanted


def test_rows_are_llavas(tmp_path: Path) -> None:
    write_world(tmp_path, [(1, "Is the cat left of the dog?", "Yes"), (1, 'Say "yes" or "no".', "Yés")])
    write_llava_json(tmp_path / "questions", tmp_path / "triplets", tmp_path / "out")
    first, second = json.loads((tmp_path / "out" / "llava.json").read_text("utf-8"))
    assert first["conversations"] == [
        {"from": "human", "value": "<image>\nIs the cat left of the dog?"},
        {"from": "gpt", "value": "Yes"},
    ]
    assert first["image"] == second["image"] and (tmp_path / "out" / "images" / first["image"]).is_file()
    assert first["id"].endswith("/t-0") and first["id"] != second["id"]
    assert not list((tmp_path / "out").rglob("*.part"))


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_world(tmp_path, [(1, "Is it?", "Yes")])
    write_triplets(tmp_path / "other", [triplet(encoded(2), "The cat is left of the dog 2.")])
    with pytest.raises(VsreError, match=r"/t-0 asks about a triplet that is not in .*other"):
        write_llava_json(tmp_path / "questions", tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out" / "llava.json").exists()
    blind = triplet(None, "The cat is left of the dog.")
    write_triplets(tmp_path / "blind", [blind])
    with ParquetShards(tmp_path / "asked", QUESTION_SCHEMA) as shards:
        shards.write(question(blind, "Is it?", "Yes", "t"))
    with pytest.raises(VsreError, match=r"a\.png\) has no picture"):
        write_llava_json(tmp_path / "asked", tmp_path / "blind", tmp_path / "more")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    with pytest.raises(VsreError, match="something other"):
        write_llava_json(tmp_path / "questions", tmp_path / "triplets", tmp_path / "taken")


def said(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]


GOOD = {"id": "1", "image": "a.png", "conversations": said("What is it?\n<image>", "A square.", "Its colour?", "Red.")}
BAD: dict[str, list[Any]] = {
    "not an object": ["text", 7, None, []],
    "no picture": [{"id": "2", "conversations": said("Hi", "Hello")}, GOOD | {"image": ""}, GOOD | {"image": 7}],
    "several pictures": [
        GOOD | {"image": ["a.png", "b.png"]},
        GOOD | {"conversations": said("<image><image>?", "Two.")},
    ],
    "a video": [GOOD | {"video": "a.mp4"}],
    "no conversation": [{"image": "a.png"}, GOOD | {"conversations": []}, GOOD | {"conversations": "hi"}],
    "turns are not human and gpt by turns": [
        GOOD | {"conversations": [{"from": "system", "value": "Be good."}, *said("<image>?", "Yes.")]},
        GOOD | {"conversations": [{"from": "human", "value": 3}]},
        GOOD | {"conversations": ["hi"]},
    ],
    "a question without an answer": [GOOD | {"conversations": said("<image>\nWhat?")}],
    "a picture after the first question": [GOOD | {"conversations": said("<image>\nWhat?", "A <image>.")}],
    "an empty question or answer": [GOOD | {"conversations": said("<image>\n", "A square.")}],
    "text that is not Unicode": [GOOD | {"conversations": said("<image>\nWhat?", "\ud800")}],
    "picture missing": [GOOD | {"image": "none.png"}, GOOD | {"image": "x" * 5000}],
    "a path that leaves the picture folder": [
        GOOD | {"image": "../a.png"},
        GOOD | {"image": "/etc/passwd"},
        GOOD | {"image": "sub/../../pictures-not/a.png"},
        GOOD | {"image": "a\0.png"},
    ],
    "picture broken": [GOOD | {"image": "broken.png"}],
    "a picture that is held out": [GOOD | {"image": "renamed.png"}, GOOD | {"image": "coco/test.png"}],
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "coco").mkdir(parents=True)
    (folder / "a.png").write_bytes(encoded(1))
    (folder / "broken.png").write_bytes(encoded(1)[:40])
    (folder / "renamed.png").write_bytes(encoded(9))
    (folder / "coco" / "test.png").write_bytes(encoded(5))
    (tmp_path / "a.png").write_bytes(encoded(1))
    held = [triplet(encoded(9), "One.", "x.png"), triplet(encoded(8), "Two.", "test.png")]
    write_triplets(tmp_path / "held", held)
    return folder


@pytest.mark.parametrize("lines", [False, True], ids=["list", "lines"])
def test_bad_rows_are_set_aside_with_row_and_reason(lines: bool, pictures: Path, tmp_path: Path) -> None:
    rows: list[Any] = [GOOD]
    wanted: list[tuple[int, str]] = []
    for reason, bad in BAD.items():
        wanted += [(len(rows) + n + 1, reason) for n in range(len(bad))]
        rows += bad
    rows.append(GOOD | {"id": "last"})
    file = tmp_path / "data.json"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n{broken\n" if lines else json.dumps(rows))
    out = tmp_path / "out"
    summary = read_llava_json(file, out, images=pictures, held_out=tmp_path / "held")
    aside = [json.loads(line) for line in (out / "set_aside.jsonl").read_text("utf-8").splitlines()]
    wanted += [(len(rows) + 2, "not JSON")] if lines else []
    assert [(line["row"], line["reason"]) for line in aside] == wanted
    assert summary["set_aside"] == {r: len(b) for r, b in BAD.items()} | ({"not JSON": 1} if lines else {})
    assert summary["questions"] == 2 and summary["pictures"] == 1 and summary["later_turns_left_out"] == 2
    assert summary["rows"] == len(rows) + lines
    assert [q.prompt for q in read_questions(out / "questions")] == ["What is it?"] * 2
    assert not (tmp_path / "out.part").exists()


@settings(max_examples=80, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["<image>", "human", "gpt"]),
        lambda part: (
            st.lists(part, max_size=3)
            | st.dictionaries(st.sampled_from(["image", "conversations", "from", "value", "id"]), part, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_no_row_breaks_the_reader(row: Any) -> None:
    try:
        found = parse_row(row)
    except Unusable as why:
        assert why.reason
    else:
        assert found.image and found.pairs and all(prompt and answer for prompt, answer in found.pairs)


def test_each_turn_by_itself(pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.json.gz"
    file.write_bytes(gzip.compress(json.dumps([GOOD]).encode()))
    summary = read_llava_json(file, tmp_path / "out", images=pictures, turns="each")
    assert summary["questions"] == 2 and summary["later_turns_left_out"] == 0
    found = list(read_questions(tmp_path / "out" / "questions"))
    assert [(q.prompt, q.answer) for q in found] == [("What is it?", "A square."), ("Its colour?", "Red.")]
    assert len({q.id for q in found}) == 2
    with pytest.raises(VsreError, match="turns is 'all'"):
        read_llava_json(file, tmp_path / "out", images=pictures, turns="all")


def test_trains_as_general_data(pictures: Path, tmp_path: Path, tiny_vsre_folder: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([GOOD, GOOD | {"image": "coco/test.png"}]))
    read_llava_json(file, tmp_path / "out", images=pictures)
    encoder = ChatEncoder(AutoProcessor.from_pretrained(tiny_vsre_folder))
    source = DataSource(triplets=tmp_path / "out" / "triplets", questions=tmp_path / "out" / "questions")
    store = open_store(source, encoder, tmp_path / "cache")
    assert len(store) == 2 and store.image(1) == encoded(5)
    example = store.example(0)
    assert encoder.tokenizer.decode(example.ids[example.first : example.end]).strip() == "A square.</s>"


def test_files_that_cannot_be_read(pictures: Path, tmp_path: Path) -> None:
    for content, words in (
        (b'[{"image": "a.png"', "not valid JSON"),
        (b"", "no rows here"),
        (b"[]", "no rows here"),
        (b'["x"]', "none of the 1 rows can be used"),
        (b"\xff\xfe{}", "cannot be read as UTF-8"),
    ):
        file = tmp_path / "data.json"
        file.write_bytes(content)
        with pytest.raises(VsreError, match=words):
            read_llava_json(file, tmp_path / "out", images=pictures)
        assert not (tmp_path / "out").exists()
    with pytest.raises(VsreError, match="no such file"):
        read_llava_json(tmp_path / "none.json", tmp_path / "out", images=pictures)
    with pytest.raises(VsreError, match="no such picture folder"):
        read_llava_json(file, tmp_path / "out", images=tmp_path / "none")
    with pytest.raises(VsreError, match="something other"):
        read_llava_json(file, pictures, images=pictures)
    assert (pictures / "a.png").is_file()


def test_the_verbs(tmp_path: Path) -> None:
    write_world(tmp_path, [(1, "Is the cat left of the dog?", "Yes"), (2, "Is it?", "No")])
    llava, figures = tmp_path / "llava", tmp_path / "figures.json"
    run = CliRunner().invoke(
        app, ["llava-json", "export", *map(str, (tmp_path / "questions", tmp_path / "triplets", llava))]
    )
    assert run.exit_code == 0, run.output
    arguments = [str(llava / "llava.json"), str(tmp_path / "back"), "-i", str(llava / "images"), "--limit", "1"]
    run = CliRunner().invoke(app, ["llava-json", "import", *arguments, "--json", str(figures)])
    assert run.exit_code == 0, run.output
    assert "triplets:" in run.output and json.loads(figures.read_text())["questions"] == 1
    assert [prompt for _, prompt, _ in read_back(tmp_path / "back")] == ["Is the cat left of the dog?"]
