"""Training data on disk, made once per run: tokens, spans and encoded images in memory-mapped flat files.

A source of half a million questions is rendered and tokenized in one stream; afterwards a question is a slice
of one file, an image a slice of another, and neither tokenizer nor Parquet reader runs during training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vsre.errors import VsreError
from vsre.train.examples import ChatEncoder, Example
from vsre.train.stages import DataSource
from vsre.triplets import image_content_id, parquet_files

QUESTION_COLUMNS = ["key", "template", "prompt", "answer"]
IMAGE_COLUMNS = ["key", "image_id", "image_name", "image"]
SET_ASIDE = "set-aside.jsonl"
META = "meta.json"
"""Written last: a store that has it is complete."""


class Store:
    """One source's questions and images, as slices of memory-mapped files.

    tokens (T,) int32; offsets (Q+1,) int64; spans (Q, 2) int32: what is learnt; image_of (Q,) int32;
    image_bytes (B,) uint8; image_offsets (I+1,) int64; image_ids (I,): content ids.
    Rows are numbered over the questions that were kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / META).read_text())
        self.tokens = _map(folder / "tokens.bin", np.int32)
        self.image_bytes = _map(folder / "images.bin", np.uint8)
        self.offsets, self.spans, self.image_of, self.image_offsets, self.image_ids, self.source_row = (
            np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("offsets", "spans", "image_of", "image_offsets", "image_ids", "source_row")
        )

    def __len__(self) -> int:
        return len(self.image_of)

    def example(self, row: int) -> Example:
        first, end = self.spans[row]
        return Example(np.asarray(self.tokens[self.offsets[row] : self.offsets[row + 1]]), int(first), int(end))

    def image(self, image: int) -> bytes:
        return self.image_bytes[self.image_offsets[image] : self.image_offsets[image + 1]].tobytes()

    def question_ids(self, rows: Sequence[int]) -> list[str]:
        """KEY/TEMPLATE of questions, read from the source: needed only to name them in a message."""
        wanted = {int(self.source_row[r]): i for i, r in enumerate(rows)}
        names = ["?"] * len(rows)
        number = 0
        for batch in _question_batches(Path(self.meta["questions"]), ["key", "template"]):
            for row in range(batch.num_rows):
                if (at := wanted.get(number + row)) is not None:
                    names[at] = f"{batch['key'][row].as_py()}/{batch['template'][row].as_py()}"
            number += batch.num_rows
        return names


def _map(path: Path, dtype: Any) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)


def _question_batches(path: Path, columns: list[str]) -> Iterator[Any]:
    for file in parquet_files(path):
        parquet = pq.ParquetFile(file)
        if missing := [c for c in columns if c not in parquet.schema_arrow.names]:
            raise VsreError(f"{file}: not a question file, it lacks the columns {', '.join(missing)}.")
        yield from parquet.iter_batches(batch_size=4096, columns=columns)


def _triplet_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sorted triplet keys, and the number of each one's image; images are numbered as they first appear."""
    keys: list[np.ndarray] = []
    numbers: list[int] = []
    images: dict[str, int] = {}
    for file in parquet_files(path):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=65536, columns=["key", "image_id"]):
            keys.append(np.array(batch["key"].to_pylist(), dtype="S16"))
            numbers += [images.setdefault(i, len(images)) for i in batch["image_id"].to_pylist()]
    if not numbers:
        raise VsreError(f"{path}: no triplets here.")
    flat = np.concatenate(keys)
    order = np.argsort(flat, kind="stable")
    return flat[order], np.array(numbers, dtype=np.int32)[order]


def open_store(source: DataSource, encoder: ChatEncoder, cache: Path, max_tokens: int | None = None) -> Store:
    """The store of a source, made in `cache` if it is not there yet. The caller names `cache` by its
    content.

    Questions longer than `max_tokens` (visual tokens included) are set aside in set-aside.jsonl and counted
    in `meta["set_aside"]`. Raises VsreError for a question whose triplet or image is missing or that teaches
    nothing.
    """
    if not (cache / META).is_file():
        part = cache.with_name(f"{cache.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            _build(source, encoder, part, max_tokens)
            shutil.rmtree(cache, ignore_errors=True)
            part.rename(cache)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Store(cache)


def _build(source: DataSource, encoder: ChatEncoder, folder: Path, max_tokens: int | None) -> None:
    keys, image_numbers = _triplet_index(source.triplets)
    room = max_tokens - encoder.visual_tokens + 1 if max_tokens else None
    lengths, spans, image_of, source_row = [], [], [], []
    number = set_aside = 0
    with (folder / "tokens.bin").open("wb") as tokens, (folder / SET_ASIDE).open("w") as aside:
        for batch in _question_batches(source.questions, QUESTION_COLUMNS):
            columns = {c: batch[c].to_pylist() for c in QUESTION_COLUMNS}
            names = [f"{k}/{t}" for k, t in zip(columns["key"], columns["template"], strict=True)]
            wanted = np.array(columns["key"], dtype="S16")
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            if len(missing := np.flatnonzero(keys[at] != wanted)):
                raise VsreError(
                    f"{source.questions}: question {names[missing[0]]} (row {number + missing[0] + 1}) asks "
                    f"about a triplet that is not in {source.triplets}. Rewrite the questions from there."
                )
            for i, example in enumerate(encoder.encode(names, columns["prompt"], columns["answer"])):
                if room and len(example.ids) > room:
                    reason = f"{len(example.ids) + encoder.visual_tokens - 1} tokens, the model takes {max_tokens}"
                    aside.write(json.dumps({"row": number + i + 1, "id": names[i], "reason": reason}) + "\n")
                    set_aside += 1
                    continue
                tokens.write(example.ids.tobytes())
                lengths.append(len(example.ids))
                spans.append((example.first, example.end))
                image_of.append(image_numbers[at[i]])
                source_row.append(number + i)
            number += batch.num_rows
    if not lengths:
        raise VsreError(f"{source.questions}: no usable question ({set_aside} of {number} are too long).")
    used, compact = np.unique(np.array(image_of, dtype=np.int32), return_inverse=True)
    image_offsets, image_ids = _copy_images(source.triplets, set(used.tolist()), folder / "images.bin")
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        "spans": np.array(spans, dtype=np.int32),
        "image_of": compact.astype(np.int32),
        "image_offsets": image_offsets,
        "image_ids": image_ids,
        "source_row": np.array(source_row, dtype=np.int64),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    meta = {"questions": str(source.questions), "triplets": str(source.triplets), "set_aside": set_aside}
    (folder / META).write_text(json.dumps(meta))


def _copy_images(path: Path, used: set[int], target: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the encoded bytes of the used images one after the other, each once; return their offsets and content ids.

    Images are numbered as they first appear, as in `_triplet_index`, so they are written in ascending order.
    """
    numbers: dict[str, int] = {}
    sizes: list[int] = []
    ids: list[str] = []
    with target.open("wb") as out:
        for file in parquet_files(path):
            for batch in pq.ParquetFile(file).iter_batches(batch_size=256, columns=IMAGE_COLUMNS):
                for row, image_id in enumerate(batch["image_id"].to_pylist()):
                    if image_id in numbers:
                        continue
                    numbers[image_id] = len(numbers)
                    if numbers[image_id] not in used:
                        continue
                    data = (batch["image"][row].as_py() or {}).get("bytes")
                    if not data:
                        raise VsreError(
                            f"{file}: triplet {batch['key'][row].as_py()} has no image "
                            f"({batch['image_name'][row].as_py()}), and a question asks about it. Read the source "
                            "again with its image folder."
                        )
                    found = image_content_id(data)
                    if found != image_id and not image_id.startswith("name:"):
                        raise VsreError(
                            f"{file}: the image of triplet {batch['key'][row].as_py()} "
                            f"({batch['image_name'][row].as_py()}) is not the one the triplet was made from "
                            f"(its content is {found}, {image_id} is expected). Read the source again."
                        )
                    sizes.append(out.write(data))
                    ids.append(found)
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), np.array(ids)
