"""Export a finished repaint for others: WebDataset tars, or Parquet with image features and a data set card.

DEST/repaint-NNNNNN.tar        webdataset: JOB.png (or .jpg) and JOB.json, what is said about the picture
DEST/data/SPLIT-NNNNN.parquet  parquet: the triplets' columns; `datasets.load_dataset(DEST)` shows the pictures
DEST/README.md                 a card: counts, painter, licences, how to load

Everything is written to a temporary folder and renamed to DEST once complete. `vsre.repaint.imports` reads both back.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from vsre.errors import VsreError
from vsre.repaint.finish import SUMMARY
from vsre.triplets import ParquetShards, Triplet, is_split_name, parquet_files, read_triplets, to_row, triplet_schema

PICTURES_A_TAR = 1000

_OF_PICTURE = ("image_id", "image_name", "width", "height", "split", "origin")
_OF_STATEMENT = ("key", "subject", "relation", "object", "caption", "label", "subject_box", "object_box")
"""The columns that a WebDataset sample's JSON holds once, and those that each of its `triplets` holds; `provenance` is
in both places, each key in one of them."""

Format = Callable[[Path, Path], dict[str, Any]]


def export(out: Path | str, dest: Path | str, form: str) -> dict[str, Any]:
    """Write a finished repaint to a new folder; returns counts of what was written.

    If it fails, what was written is removed. Raises VsreError if OUT is not finished or has a split that cannot name a
    file, if DEST exists already, and for an unknown format.
    """
    out, dest = Path(out), Path(dest)
    if form not in FORMATS:
        raise VsreError(f"There is no format {form!r}. There are: {', '.join(FORMATS)}.")
    if not (out / SUMMARY).is_file():
        raise VsreError(f"{out}: no finished repaint here. Run `vsre repaint finish {out}` first.")
    if dest.exists():
        raise VsreError(f"{dest}: exists already. Name a new folder.")
    _check_splits(out)
    summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    aside = dest.with_name(f"{dest.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        written = FORMATS[form](out, aside)
        (aside / "README.md").write_text(_card(form, summary, written), encoding="utf-8")
        aside.replace(dest)
    except BaseException:
        # It may hold half a million pictures, and a full disk needs that space.
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return written


def _check_splits(out: Path) -> None:
    for file in parquet_files(out):
        for split in pc.unique(pq.ParquetFile(file).read(columns=["split"])["split"]).to_pylist():
            if not is_split_name(split):
                raise VsreError(
                    f"{file}: the split {split!r} cannot name a file. Rename it in the source triplets to letters, "
                    "digits, '_', '.' and '-', and repaint those."
                )


def _webdataset(out: Path, dest: Path) -> dict[str, Any]:
    pictures = rows = 0
    with ExitStack() as stack:
        tar: tarfile.TarFile | None = None
        for of_one in _by_picture(out):
            if pictures % PICTURES_A_TAR == 0:
                stack.close()
                name = f"repaint-{pictures // PICTURES_A_TAR:06d}.tar"
                # The old ustar format has no fields that differ between machines.
                tar = stack.enter_context(tarfile.open(dest / name, "w", format=tarfile.USTAR_FORMAT))
            assert tar is not None and of_one[0].image is not None
            key, extension = of_one[0].image_name.split(".")
            _add(tar, f"{key}.{extension}", of_one[0].image)
            _add(tar, f"{key}.json", json.dumps(sample_json(of_one), sort_keys=True).encode())
            pictures += 1
            rows += len(of_one)
    return {"format": "webdataset", "pictures": pictures, "rows": rows, "files": len(list(dest.glob("*.tar")))}


def _by_picture(out: Path) -> Iterator[list[Triplet]]:
    """The triplets grouped by picture; those of one picture are adjacent."""
    for _, of_one in groupby(read_triplets(out), key=lambda triplet: triplet.image_name):
        yield list(of_one)


def sample_json(of_one: list[Triplet]) -> dict[str, Any]:
    """Everything that is said about one picture, as JSON."""
    rows = [to_row(triplet) for triplet in of_one]
    shared = {
        name: value
        for name, value in of_one[0].provenance.items()
        if all(name in t.provenance and t.provenance[name] == value for t in of_one)
    }
    return {
        **{name: rows[0][name] for name in _OF_PICTURE},
        "provenance": shared,
        "triplets": [
            {name: row[name] for name in _OF_STATEMENT}
            | {"provenance": {k: v for k, v in triplet.provenance.items() if k not in shared}}
            for row, triplet in zip(rows, of_one, strict=True)
        ],
    }


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _parquet(out: Path, dest: Path) -> dict[str, Any]:
    from datasets import Features, Image

    # For others: `load_dataset` should show pictures.
    schema = Features({**Features.from_arrow_schema(triplet_schema()), "image": Image()}).arrow_schema
    pictures: set[str] = set()
    splits: dict[str, ParquetShards] = {}
    with ExitStack() as stack:
        for file in parquet_files(out):
            parquet = pq.ParquetFile(file)
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group)
                pictures.update(table["image_id"].to_pylist())
                for split in pc.unique(table["split"]).to_pylist():
                    if split not in splits:
                        shards = ParquetShards(dest / "data", schema, prefix=split)
                        splits[split] = stack.enter_context(shards)
                    rows = table.filter(pc.equal(table["split"], split))
                    splits[split].write_table(rows.replace_schema_metadata(schema.metadata))
    return {
        "format": "parquet",
        "pictures": len(pictures),
        "rows": sum(shards.written for shards in splits.values()),
        "files": len(list((dest / "data").iterdir())),
        "splits": sorted(splits),
    }


FORMATS: dict[str, Format] = {"webdataset": _webdataset, "parquet": _parquet}


def _card(form: str, summary: dict[str, Any], written: dict[str, Any]) -> str:
    templates = Environment(
        loader=PackageLoader("vsre.repaint"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return templates.get_template("card.md.j2").render(form=form, made=summary, written=written)
