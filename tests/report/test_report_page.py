"""The page: complete, self-contained, escaped, bounded, and honest about what is missing."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from report_fakes import make_log, make_run, make_triplets

from vsre.errors import VsreError
from vsre.report import ReportMeta, ReportRun, write_report
from vsre.triplets import write_triplets

VOID = {"meta", "br", "img"}
SECTIONS = {"result", "templates", "kinds", "gallery", "data", "training", "run", "words"}
NASTY = '<script>alert("x")</script>\x00\x1b[31m\u202e\'"&'
SMALL = {"phase1": 3, "pool": 4, "held-out": 2, "test-s": 1}


class Page(HTMLParser):
    """Checks that elements close in order, and collects what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.links.append(value or "")
            assert not name.startswith("on"), (tag, name)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a rung that changes nothing, and an expert, on 120 triplets with pictures."""
    root = tmp_path_factory.mktemp("report")
    triplets = make_triplets(root / "data" / "test", 120)
    for name, skill, leaning, wobble in (
        ("base", 0.05, 1.0, 0.8),
        ("rung", 0.05, 1.0, 0.8),
        ("expert", 1.5, 0.0, 0.1),
    ):
        make_run(root / name, name, triplets, skill=skill, leaning=leaning, wobble=wobble, packs=SMALL)
    make_log(root / "train" / "stage1" / "log.jsonl")
    return root


def runs_of(world: Path) -> list[ReportRun]:
    log = world / "train" / "stage1" / "log.jsonl"
    return [
        ReportRun(name="Base", folder=world / "base", role="base"),
        ReportRun(name="Rung", folder=world / "rung"),
        ReportRun(name="Expert", folder=world / "expert", role="expert", logs=(log,)),
    ]


def full_meta(world: Path) -> ReportMeta:
    return ReportMeta(
        triplets=world / "data",
        datasets=[{"name": "scenes", "rows": 9000, "images": 4500}, {"name": "pre", "templates": 10}],
        set_aside=[{"reason": "image missing", "rows": 2}],
        checks={"leave one out": {"value": 0.497, "low": 0.47, "high": 0.52, "n": 640}},
        painter=[{"setting": "t2i", "made": 100}],
        models=[{"name": "VSRE", "encoders": ["clip", "sam"], "visual tokens": 128}],
        stages=[{"stage": "stage1", "trains": ["adapters"], "lr": 1e-3}],
        seeds={"data": 1},
        versions={"torch": "2"},
        hardware={"cpu": "two cores"},
        times={"train": 75.0, "report": None},
        notes=["tiny models"],
        command="vsre demo",
    )


def write(world: Path, out: Path, **changes: object) -> str:
    meta = full_meta(world).model_copy(update=changes)
    return write_report(out / "report.html", runs_of(world), meta).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(world: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(world, tmp_path_factory.mktemp("out"))


def test_it_parses_and_every_section_is_there(html: str) -> None:
    page = Page(html)
    assert page.ids >= SECTIONS
    for words in (
        "What each step changed",
        "Training loss",
        "Rows set aside",
        "1 min 15 s",
        "0.497 [0.47, 0.52], n 640",
    ):
        assert words in page.text, words
    assert "script" not in page.tags
    assert not list(re.finditer(r"\{\{|\{%|Undefined|None\b", page.text))


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    page = Page(html)
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", html)
    assert "default-src 'none'" in html


def test_it_is_small_and_its_pictures_are_thumbnails(html: str) -> None:
    assert len(html.encode()) < 3_000_000
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    assert len(pictures) >= 10
    for data in pictures:
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 160


def test_boxes_stand_where_the_triplet_says(html: str) -> None:
    assert '<rect class="subject" x="10.00%" y="30.00%" width="30.00%" height="50.00%">' in html
    assert '<rect class="object" x="50.00%" y="40.00%" width="40.00%" height="50.00%">' in html


def test_the_gallery_shows_each_statement_once_and_follows_the_seed(world: Path, html: str, tmp_path: Path) -> None:
    def drawn(page: str) -> list[str]:
        return re.findall(r'<p class="said">(.*?)</p>', page)

    assert write(world, tmp_path).count("data:image") == html.count("data:image")
    assert drawn(write(world, tmp_path)) == drawn(html)
    assert drawn(write(world, tmp_path, seed=9)) != drawn(html)


def test_a_rung_that_changes_nothing_is_called_that(html: str) -> None:
    text = Page(html).text
    assert "no difference that this sample can show (+0.0 points [+0.0, +0.0])" in text
    assert re.search(r"Expert is right [\d.]+\xa0% of the time, Base [\d.]+\xa0%: higher by [\d.]+ points \[", text)


@pytest.mark.parametrize(("protocol", "leaky"), [("paper", True), ("clean", False), (None, False)])
def test_a_leaky_protocol_is_said_in_red(world: Path, tmp_path: Path, protocol: str | None, leaky: bool) -> None:
    assert ('class="alarm"' in write(world, tmp_path, protocol=protocol)) is leaky


def test_everything_is_escaped_and_bounded(tmp_path: Path) -> None:
    bomb = NASTY + "long " * 2000
    triplets = [t.replace(caption=bomb + str(i)) for i, t in enumerate(make_triplets(tmp_path / "plain", 12))]
    write_triplets(tmp_path / "data", triplets)
    folder = make_run(tmp_path / "run", bomb, triplets, skill=0.5, packs={"pool": 2, NASTY: 2, "test-s": 1})
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["by_relation"][NASTY] = metrics["by_meta_category"][bomb] = {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 3,
    }
    metrics["protocol"] = metrics["test_s"]["template"] = bomb
    (folder / "metrics.json").write_text(json.dumps(metrics))
    row = {NASTY: bomb, "lone surrogate": "\ud800"}
    meta = ReportMeta(
        title=bomb, question=bomb, protocol_note=bomb, command=bomb, triplets=tmp_path / "data", notes=[bomb],
        datasets=[row], set_aside=[row], painter=[row], models=[row], stages=[row],
        checks=row, seeds=row, versions=row, hardware=row, times={bomb: 1.0},
    )  # fmt: skip
    runs = [
        ReportRun(name=bomb, folder=folder, note=bomb),
        ReportRun(name=NASTY, folder=folder, role="expert"),
    ]
    html = write_report(tmp_path / "r.html", runs, meta).read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html)
    assert max(len(words) for words in page.words) <= 400
    assert len(html) < 700_000


def test_missing_figures_show_as_dashes_with_a_reason(world: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    keys = (
        "test_s",
        "test_g",
        "unseen",
        "templates",
        "bias",
        "auroc",
        "consistency",
        "by_relation",
        "blind_floor",
    )
    (empty / "metrics.json").write_text(json.dumps({"model": "m", "protocol": None, **dict.fromkeys(keys)}))
    out = write_report(tmp_path / "r.html", [ReportRun(name="m", folder=empty)], ReportMeta())
    page = Page(out.read_text(encoding="utf-8"))
    assert page.ids >= SECTIONS
    assert page.text.count("not measured") >= 7
    assert "No accuracy was measured" in page.text
    mixed = [runs_of(world)[0], ReportRun(name="m", folder=empty, role="expert")]
    assert Page(write_report(tmp_path / "r.html", mixed, ReportMeta()).read_text(encoding="utf-8")).ids >= SECTIONS


def test_one_run_alone_is_enough(world: Path, tmp_path: Path) -> None:
    meta = ReportMeta(triplets=world / "data")
    page = Page(write_report(tmp_path / "r.html", runs_of(world)[2:], meta).read_text(encoding="utf-8"))
    assert "What each step changed" not in page.text
    assert "a guesser that sees no picture" in page.text


def test_a_broken_picture_does_not_cost_the_report(tmp_path: Path) -> None:
    triplets = [t.replace(image=b"", subject_box=(0.5, 0.5, 1.8, 0.4)) for t in make_triplets(tmp_path / "d", 12)]
    write_triplets(tmp_path / "d", triplets)
    folder = make_run(tmp_path / "run", "m", triplets, skill=0.5, packs=SMALL)
    run = [ReportRun(name="m", folder=folder)]
    page = Page(write_report(tmp_path / "r.html", run, ReportMeta(triplets=tmp_path / "d")).read_text(encoding="utf-8"))
    assert "no picture at hand" in page.text
    assert "img" not in page.tags


def test_bad_input_is_told_apart_from_failure(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="at least one run"):
        write_report(tmp_path / "r.html", [], ReportMeta())
    with pytest.raises(VsreError, match=r"metrics\.json: no such file"):
        write_report(tmp_path / "r.html", [ReportRun(name="x", folder=tmp_path)], ReportMeta())
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(VsreError, match="not readable as JSON"):
        write_report(tmp_path / "r.html", [ReportRun(name="x", folder=tmp_path)], ReportMeta())
