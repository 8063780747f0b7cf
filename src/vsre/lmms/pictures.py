"""The pictures of a test set by their ids, read where they are stored.

`datasets` unpacks a picture into its cache once per question: gigabytes for VSR in fifty wordings. So the tasks load
the questions without their pictures, and fetch each from the configuration with the fewest rows when it is needed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from vsre.errors import VsreError
from vsre.lmms.folder import read_summary
from vsre.lmms.hub import hub_folder
from vsre.sources.images import load_image

CACHE_BYTES = 128 << 20
"""Bytes of encoded pictures that are kept; at least those of the row group read last."""


class Pictures:
    """The pictures of the test set `data`, a folder or a repository on the hub; thread-safe."""

    def __init__(self, data: str, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.data, self.cache_bytes = data, cache_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    @cached_property
    def _places(self) -> dict[str, tuple[Path, int]]:
        """The file and row group where each picture appears first."""
        folder = Path(self.data) if Path(self.data).is_dir() else hub_folder(self.data)
        summary = read_summary(folder)
        places: dict[str, tuple[Path, int]] = {}
        for name in sorted(summary["configs"], key=lambda name: summary["configs"][name]["questions"]):
            if len(places) >= summary["images"]:
                break
            if folder != Path(self.data):
                hub_folder(self.data, name)
            for file in sorted((folder / name).glob("test-*.parquet")):
                parquet = pq.ParquetFile(file)
                for group in range(parquet.num_row_groups):
                    ids = parquet.read_row_group(group, columns=["image_id"])["image_id"].unique().to_pylist()
                    for image_id in ids:
                        places.setdefault(image_id, (file, group))
        return places

    def encoded(self, image_id: str) -> bytes:
        """The picture as it is stored. Raises VsreError for an id that the test set does not have."""
        with self._lock:
            if image_id not in self._kept:
                if image_id not in self._places:
                    raise VsreError(
                        f"{self.data}: no picture {image_id} in this test set. Write it and its tasks again."
                    )
                self._read(*self._places[image_id], image_id)
            self._kept.move_to_end(image_id)
            return self._kept[image_id]

    def _read(self, file: Path, group: int, wanted: str) -> None:
        # Reading as a dictionary keeps a picture that many rows share from being unpacked for each.
        parquet = pq.ParquetFile(file, read_dictionary=["image.bytes"])
        table = parquet.read_row_group(group, columns=["image.bytes", "image_id"])
        fresh: dict[str, bytes] = {}
        for chunk in table.to_batches():
            images = chunk.column("image").field("bytes")
            for row, image_id in enumerate(chunk.column("image_id").to_pylist()):
                if image_id not in fresh:
                    fresh[image_id] = images[row].as_py()
        while self._kept and self._size + sum(map(len, fresh.values())) > self.cache_bytes:
            self._size -= len(self._kept.popitem(last=False)[1])
        for image_id, data in fresh.items():
            if image_id not in self._kept:
                self._size += len(data)
            self._kept[image_id] = data
        if wanted not in self._kept:
            raise VsreError(f"{file}: row group {group} changed while it was read. Write the test set again.")

    def of(self, doc: dict[str, str]) -> list[Image.Image]:
        """What lmms-eval shows a model for a question: its picture, RGB and upright."""
        image_id = doc["image_id"]
        return [load_image(self.encoded(image_id), name=image_id)]
