"""The pictures of a test set by their ids: from a folder or the hub, within a bound of memory, from several threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from diagnose_data import make_triplets, write_data

from vsre.errors import VsreError
from vsre.lmms.pictures import Pictures
from vsre.lmms.testset import write_testset


def test_pictures_are_let_go_and_read_again(testset_folder: Path) -> None:
    ids = [t.image_id for t in make_triplets(6, per_image=1)]
    pictures = Pictures(str(testset_folder), cache_bytes=0)
    wanted = {t.image_id: t.image for t in make_triplets(6, per_image=1)}
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda i=i: found.append(pictures.encoded(i))) for i in ids * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([data for data in wanted.values() if data] * 5)
    with pytest.raises(VsreError, match="no picture sha256:none"):
        pictures.encoded("sha256:none")


def test_pictures_kept_stay_within_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triplets = make_triplets(8, per_image=1)
    size = max(len(t.image or b"") for t in triplets)
    monkeypatch.setattr("vsre.lmms.testset.ROW_GROUP_ROWS", 2)
    write_testset(write_data(tmp_path / "data", triplets), tmp_path / "set", ["test-s"])
    pictures = Pictures(str(tmp_path / "set"), cache_bytes=4 * size)
    for t in [*triplets, *triplets[::-1]]:
        assert pictures.encoded(t.image_id) == t.image
        assert sum(map(len, pictures._kept.values())) == pictures._size <= 4 * size


def test_pictures_of_a_data_set_on_the_hub(testset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def snapshot_download(repo: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        assert repo_type == "dataset"
        asked.append(allow_patterns)
        return str(testset_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    triplet = make_triplets(6)[0]
    assert Pictures("owner/name").encoded(triplet.image_id) == triplet.image
    assert asked == [["testset.json"], ["testset.json", "test_s/test-*.parquet"]]  # the fewest rows, not Test-G's
