"""Parquet files from elsewhere: every row is checked."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_export import with_pictures

from vsre.errors import VsreError
from vsre.repaint import imports
from vsre.repaint.imports import import_export
from vsre.triplets import read_triplets, to_row, triplet_schema

BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "provenance is no JSON": ({"provenance": "{not json"}, imports.NOT_OURS),
    "provenance is a list": ({"provenance": "[1]"}, imports.NOT_OURS),
    "no picture": ({"image": {"bytes": b"this is no picture", "path": "x.png"}}, imports.NOT_OURS),
    "no image": ({"image": None}, imports.NO_PICTURE),
    "no bytes": ({"image": {"bytes": None, "path": "x.png"}}, imports.NO_PICTURE),
    "another picture": ({"image_id": "sha256:" + "0" * 24}, imports.OTHER_PICTURE),
    "another caption": ({"caption": "another"}, imports.NOT_OURS),
    "a box of two numbers": ({"subject_box": [0.1, 0.2]}, imports.NOT_OURS),
    "a box of none": ({"subject_box": []}, imports.NOT_OURS),
    "half a box": ({"object_box": [0.1, None, 0.2, 0.3]}, imports.NOT_OURS),
    "no label": ({"label": None}, imports.NOT_OURS),
    "no key": ({"key": None}, imports.NOT_OURS),
    "no width": ({"width": None}, imports.NOT_OURS),
    "a split that is a path": ({"split": "../part"}, imports.BAD_SPLIT),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_rows_of_parquet_are_checked_as_samples_of_tars_are(tmp_path: Path, what: str) -> None:
    changes, reason = BAD_ROWS[what]
    good = with_pictures(4)
    rows = [to_row(row) for row in good]
    rows[2] |= changes
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, triplet_schema()), tmp_path / "data" / "train-00000.parquet")
    back = import_export(tmp_path, tmp_path / "back")
    assert back == {"rows": 3, "images": 3, "set_aside": {reason: 1}}
    assert list(read_triplets(tmp_path / "back")) == [*good[:2], good[3]]
    [told] = (tmp_path / "back" / "set_aside.jsonl").read_text().splitlines()
    assert json.loads(told) == {"place": "data/train-00000.parquet:3", "reason": reason}


def test_a_parquet_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(VsreError, match=r"a\.parquet: cannot be read as Parquet"):
        import_export(tmp_path / "a.parquet", tmp_path / "back")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(VsreError, match="not a triplet file, it lacks the columns"):
        import_export(tmp_path / "a.parquet", tmp_path / "back")
