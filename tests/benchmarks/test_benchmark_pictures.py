"""Pictures of rows: every kind a person may have, and what must never be opened or fetched."""

from __future__ import annotations

import io
import socket
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_data import base64_of, drawing, encoded, picture, save
from PIL import Image

from vsre.benchmarks.pictures import Pictures
from vsre.benchmarks.rows import Unusable
from vsre.errors import VsreError
from vsre.sources.images import load_image


def palette() -> bytes:
    return encoded(drawing(1).convert("P"))


def cmyk() -> bytes:
    return encoded(drawing(2).convert("CMYK"), "JPEG")


def sixteen_bit() -> bytes:
    grey = (np.linspace(0, 65535, 64 * 48).reshape(48, 64)).astype(np.uint16)
    return encoded(Image.fromarray(grey))


def animated() -> bytes:
    file = io.BytesIO()
    drawing(3).save(file, "GIF", save_all=True, append_images=[drawing(4)])
    return file.getvalue()


@pytest.mark.parametrize("make", [palette, cmyk, sixteen_bit, animated, lambda: encoded(drawing(5, mode="RGBA"))])
@pytest.mark.parametrize("as_text", [True, False])
def test_odd_pictures_are_taken_and_open_as_rgb(make: Any, as_text: bool) -> None:
    data = make()
    taken = Pictures([]).take(base64_of(data) if as_text else data)
    assert taken.read() == data  # as they are: what a picture means is for the engine to say
    assert load_image(taken.read()).mode == "RGB"


def test_equal_pictures_are_kept_once(tmp_path: Path) -> None:
    pictures = Pictures([tmp_path])
    save(tmp_path / "a.png", picture(1))
    taken = [
        pictures.take(v) for v in (picture(1), base64_of(picture(1)), {"bytes": picture(1)}, "a.png", [picture(1)])
    ]
    assert len({id(t) for t in taken}) == 1 and pictures.take(picture(2)).id != taken[0].id


def test_many_embedded_pictures_leave_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.benchmarks.pictures._IN_MEMORY", 2000)
    pictures = Pictures([])
    taken = [pictures.take(picture(n)) for n in range(40)]
    assert pictures._spool._rolled
    assert all(t.read() == picture(n) for n, t in enumerate(taken))


@pytest.mark.parametrize(
    "value",
    ["http://example.org/a.png", "HTTPS://example.org/a.png", " ftp://h/a.png", "file:///etc/passwd", "//host/a.png",
     "\\\\host\\share\\a.png", "s3://bucket/a.png", "data:text/html;base64,PGI+"],
)  # fmt: skip
def test_a_url_is_never_fetched(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(Unusable, match="the picture is a URL: nothing is fetched"):
        Pictures([Path("/")]).take(value)


@pytest.mark.parametrize("value", ["../secret.png", "a/../../secret.png", "/secret.png", "..\\secret.png"])
def test_names_that_lead_out_of_the_data_are_refused(tmp_path: Path, value: str) -> None:
    save(tmp_path / "secret.png", picture(1))
    (tmp_path / "data").mkdir()
    with pytest.raises(Unusable, match="outside the data"):
        Pictures([tmp_path / "data"]).take(value)


def test_files_are_found_with_more_leading_folders_than_there_are(tmp_path: Path) -> None:
    save(tmp_path / "val2017" / "000000000007.jpg", picture(7))
    save(tmp_path / "sub" / "8", picture(8))
    pictures = Pictures([tmp_path])
    assert pictures.take("data/coco/val2017/000000000007.jpg").read() == picture(7)
    assert pictures.take("000000000007", folders=("val2017",)).read() == picture(7)
    assert pictures.take("8", beside=tmp_path / "sub").read() == picture(8)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no picture"),
        ("", "no picture"),
        (b"", "no picture"),
        ({"bytes": None, "path": None}, "no picture"),
        (17, "no picture"),
        ([], "not one picture"),
        ([b"a", b"b"], "not one picture"),
        (b"this is text", "the picture cannot be opened"),
        (picture(1)[:20], "the picture cannot be opened"),
        ("gone.png", "no such picture file"),
        ("x" * 300 + ".png", "no such picture file"),
        ("ü" * 130 + ".png", "no such picture file"),
        ("a/" * 500 + "a.png", "no such picture file"),
        (
            base64_of(b"this is text, and quite a lot of it, so that it might be a picture"),
            "the picture cannot be opened",
        ),
        ("Zm9v" * 300 + "!", "not base64"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "the picture cannot be opened"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, value: Any, reason: str) -> None:
    with pytest.raises(Unusable) as told:
        Pictures([tmp_path]).take(value)
    assert told.value.reason == reason


def test_a_name_is_not_lost_to_a_suffix_that_makes_it_too_long(tmp_path: Path) -> None:
    name = "x" * 249 + ".png"
    save(tmp_path / "sub" / name, picture(1))
    assert Pictures([tmp_path]).take(f"data/{name}", folders=("sub",)).read() == picture(1)


def test_a_picture_with_too_many_pixels_is_refused_unread() -> None:
    data = bytearray(picture(1))
    data[16:24] = (100_000).to_bytes(4, "big") * 2  # the size in the header, which has a checksum
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(Unusable, match="pixels, the limit is"):
        Pictures([]).take(bytes(data))


def test_a_file_that_is_gone_by_the_time_it_is_asked_about(tmp_path: Path) -> None:
    taken = Pictures([tmp_path]).take(save(tmp_path / "a.png", picture(1)).name)
    (tmp_path / "a.png").unlink()
    with pytest.raises(VsreError, match="cannot be read any more"):
        taken.read()
