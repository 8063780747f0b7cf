"""LLaVA's training JSON, out and in: a list of {"id", "image", "conversations": [{"from", "value"}, ...]}.

Out: one conversation per question, for training elsewhere. In: pictures with a question and a free answer, in the
folders that a stage's data source names, to train on alongside spatial questions so that nothing else is forgotten.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.rewrite import QUESTION_SCHEMA, read_questions
from vsre.sources.images import PictureTooLarge, open_header
from vsre.sources.llava_rows import IMAGE, Unusable, parse_row, read_rows
from vsre.sources.protocols import HeldOut, image_names
from vsre.sources.vsr.reader import read_picture
from vsre.sources.vsr.set_aside import SetAside
from vsre.triplets import ParquetShards, Triplet, image_content_id, read_triplets, to_row, triplet_schema

JSON, IMAGES = "llava.json", "images"
ORIGIN = "llava-json"
SUMMARY = "llava-json.json"


def write_llava_json(
    questions: Path | str,
    triplets: Path | str,
    out: Path | str,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write OUT/llava.json and OUT/images for the questions of a folder; returns the counts.

    A question becomes a conversation of its own, because a second wording of a statement would see the answer to the
    first one before it. Pictures are written as they are in the triplets, each once, named by their content. A row's
    `id` is the question's. The JSON appears once it is complete. Raises VsreError for a question without its triplet,
    and a triplet without its picture.
    """
    out = Path(out)
    if out.is_dir() and any(out.iterdir()) and not (out / JSON).is_file():
        raise VsreError(f"{out}: holds something other than {JSON}. Choose a new or empty folder.")
    wanted = {question.key for question in read_questions(questions)}
    files: dict[str, str] = {}
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    for triplet in read_triplets(triplets):
        if (key := triplet.key) in wanted:
            files[key] = _write_picture(triplet, out / IMAGES)
    written, part = 0, out / f"{JSON}.part"
    with part.open("w", encoding="utf-8") as file:
        for question in read_questions(questions):
            if question.key not in files:
                raise VsreError(
                    f"{questions}: question {question.id} asks about a triplet that is not in {triplets}. Name the "
                    "triplets that these questions were made from."
                )
            row = {
                "id": question.id,
                "image": files[question.key],
                "conversations": [
                    {"from": "human", "value": f"{IMAGE}\n{question.prompt}"},
                    {"from": "gpt", "value": question.answer},
                ],
            }
            file.write(",\n" if written else "[\n")
            file.write(json.dumps(row, ensure_ascii=False))
            written += 1
            if progress is not None and written % 1000 == 0:
                progress(written)
        file.write("\n]\n" if written else "[]\n")
    part.replace(out / JSON)
    return {"questions": written, "pictures": len(set(files.values()))}


def _write_picture(triplet: Triplet, folder: Path) -> str:
    """The picture's file name in `folder`; writes it if it is not there yet."""
    if triplet.image is None:
        raise VsreError(
            f"triplet {triplet.key} ({triplet.image_name}) has no picture, and a question asks about it. "
            "Read the source again with its image folder."
        )
    with open_header(triplet.image, name=triplet.image_name) as header:
        kind = str(header.format).lower()
    name = f"{image_content_id(triplet.image).removeprefix('sha256:')}.{'jpg' if kind in ('jpeg', 'mpo') else kind}"
    if not (folder / name).is_file():
        part = folder / f"{name}.part"
        part.write_bytes(triplet.image)
        part.replace(folder / name)
    return name


def read_llava_json(
    file: Path | str,
    out: Path | str,
    *,
    images: Path | str,
    turns: str = "first",
    limit: int | None = None,
    held_out: Path | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Read LLaVA's training JSON into OUT/triplets and OUT/questions; returns (and writes) the counts.

    `file` is a list, or one object per line, gzipped or not; it is streamed. Pictures are in `images` under the names
    that the rows give. A question is trained on by itself, without what was said before it: `turns="first"` takes only
    the first of a conversation, which needs nothing before it; "each" takes every one, for data whose turns are
    independent. `limit` reads so many rows. Pictures of `held_out`, a folder of test triplets, are not taken, whether
    they match by content or by file name.

    Rows that cannot be used are set aside in OUT/set_aside.jsonl, with row (from 1) and reason, and counted. OUT
    appears once it is complete. Raises VsreError for a file that is not JSON, and if no row is usable.
    """
    file, out, images = Path(file), Path(out), Path(images)
    if turns not in ("first", "each"):
        raise VsreError(f"turns is {turns!r}. Give first (the first question of a conversation) or each.")
    if not file.is_file():
        raise VsreError(f"{file}: no such file.")
    if not images.is_dir():
        raise VsreError(f"{images}: no such picture folder.")
    if out.exists() and not (out / SUMMARY).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise VsreError(f"{out}: holds something other than data read from LLaVA's JSON. Choose a new or empty folder.")
    held = HeldOut(read_triplets(held_out, images=False)) if held_out is not None else HeldOut()
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    counts = {"rows": 0, "questions": 0, "pictures": 0, "later_turns_left_out": 0}
    with (
        SetAside(part / "set_aside.jsonl") as aside,
        ParquetShards(part / "triplets", triplet_schema(), rows_per_file=5000) as pictures,
        ParquetShards(part / "questions", QUESTION_SCHEMA, rows_per_file=100_000) as asked,
    ):
        gallery = _Gallery(images, held, pictures)
        for number, content in read_rows(file):
            if limit is not None and number > limit:
                break
            counts["rows"] += 1
            try:
                conversation = parse_row(content)
                key, image_id = gallery.take(conversation.image)
            except Unusable as why:
                shown = "" if isinstance(content, Unusable) else json.dumps(content)
                aside.add(file, number, why.reason, why.detail, shown)
                continue
            pairs = conversation.pairs if turns == "each" else conversation.pairs[:1]
            counts["later_turns_left_out"] += len(conversation.pairs) - len(pairs)
            for turn, (prompt, answer) in enumerate(pairs, 1):
                asked.write(
                    {
                        "key": key,
                        "image_id": image_id,
                        "template": f"row-{number}" if turn == 1 else f"row-{number}-turn-{turn}",
                        "pack": ORIGIN,
                        "prompt": prompt,
                        "answer": answer,
                        "truth": True,
                        "format": "free",
                        "split": "train",
                    }
                )
                counts["questions"] += 1
            if progress is not None and number % 200 == 0:
                progress(number)
        counts["pictures"] = len(gallery.image_ids)
        if not counts["questions"]:
            raise aside.nothing_usable(str(file)) if aside.total else VsreError(f"{file}: no rows here.")
    summary = {**counts, "turns": turns, "set_aside": dict(aside.counts.most_common())}
    (part / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return summary


class _Gallery:
    """The pictures of a file, each read and written once; rows name them by path."""

    def __init__(self, folder: Path, held: HeldOut, shards: ParquetShards) -> None:
        self.folder, self.held, self.shards = folder, held, shards
        self.image_ids: set[str] = set()
        self._found: dict[str, tuple[str, str] | Unusable] = {}

    def take(self, name: str) -> tuple[str, str]:
        """Key and image id of a picture; raises Unusable if there is none or it must not be taken."""
        if name not in self._found:
            try:
                self._found[name] = self._read(name)
            except Unusable as why:
                self._found[name] = why
        found = self._found[name]
        if isinstance(found, Unusable):
            raise found
        return found

    def _read(self, name: str) -> tuple[str, str]:
        path = Path(os.path.normpath(self.folder / name))
        if "\0" in name or not path.is_relative_to(os.path.normpath(self.folder)):
            raise Unusable("a path that leaves the picture folder", name[:200])
        try:
            if not path.is_file():
                raise Unusable("picture missing", name[:200])
            picture = read_picture(path)
        except PictureTooLarge as error:
            raise Unusable("picture too large", str(error)) from None
        except VsreError as error:
            raise Unusable("picture broken", str(error)) from None
        except (OSError, ValueError) as error:  # a name that no file can have
            raise Unusable("picture missing", str(error)[:200]) from None
        row = Triplet(
            image_id=image_content_id(picture.data),
            image_name=path.name,
            subject="",
            relation="",
            object="",
            caption="A picture.",
            label=True,
            split="train",
            origin=ORIGIN,
            image=picture.data,
            width=picture.width,
            height=picture.height,
            provenance={"file": name},
        )
        if image_names(row) & self.held.images.keys():
            raise Unusable("a picture that is held out", name[:200])
        if row.image_id not in self.image_ids:
            self.image_ids.add(row.image_id)
            self.shards.write(to_row(row))
        return row.key, row.image_id
