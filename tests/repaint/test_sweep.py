import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_verify import Scripted

from vsre.errors import VsreError
from vsre.rates import share
from vsre.relations.things import Verdict
from vsre.repaint import Painted, PaintJob, Refused, ScenePainter, SceneTruth, Statement, Verification, Vocabulary
from vsre.repaint.judge import HELD_OUT_IMAGE
from vsre.repaint.presets import load_config
from vsre.repaint.sweep import Variant, grid, sweep
from vsre.triplets import Triplet, image_content_id, write_triplets

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason='needs diffusers: pip install "vsre[diffusion]"'
)


def png(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, "PNG")
    return out.getvalue()


class Flat:
    """Paints one colour for a caption, and refuses true ones where told to."""

    name = "flat/1"
    settings = ("t2i", "i2i")
    reads_images = False
    parameters: dict[str, Any] = {}

    def __init__(self, vocabulary: Vocabulary, *, shade: int, refuses: bool = False) -> None:
        self.shade, self.refuses = shade, refuses

    def parameters_for(self, setting: str) -> dict[str, Any]:
        return {"shade": self.shade}

    def paint(self, job: PaintJob) -> Painted | Refused:
        if self.refuses and job.triplet.image_name == "0.png":
            return Refused(job, "not in <this> mood")
        t = job.triplet
        said = Statement(t.subject, t.relation, t.object, "positive", None, None)
        return Painted(job, png((self.shade, 0, int(t.image_name[0]))), 40, 30, (said,), truth="intended")


def source(number: int, **changes: Any) -> Triplet:
    data = png((9, 9, number))
    return Triplet(
        image_content_id(data), f"{number}.png", f"thing {number}", "left of", "dog",
        f"The thing {number} is left of the dog.", number % 2 == 0, "train", "vsr", image=data, width=40, height=30,
        subject_box=(0.1, 0.1, 0.4, 0.4), object_box=(0.5, 0.5, 0.9, 0.9),
    ).replace(**changes)  # fmt: skip


def flat(label: str, **options: Any) -> Variant:
    return Variant(label, options, lambda vocabulary: Flat(vocabulary, **options))


@pytest.fixture
def four(tmp_path: Path) -> Path:
    write_triplets(tmp_path / "train", [source(n) for n in range(4)])
    return tmp_path / "train"


def test_figures_and_sheet(four: Path, tmp_path: Path) -> None:
    boxes = {"dog": (0.5, 0.5, 0.9, 0.9)} | {f"thing {n}": (0.1, 0.1, 0.4, 0.4) for n in range(4)}
    verifier = Scripted(
        {
            "The thing 0 is left of the dog.": Verification(Verdict.PASS, 0.2, boxes),
            "The thing 1 is left of the dog.": Verification(Verdict.FAIL, 0.1, boxes),
            "The thing 2 is left of the dog.": Verification(Verdict.PASS, 0.4, boxes),
        }
    )
    variants = [flat("dark", shade=40), flat("light <b>", shade=200, refuses=True)]
    ticks: list[tuple[int, int]] = []
    summary = sweep(
        four, tmp_path / "out", variants, setting="t2i", verifier=verifier, progress=lambda *t: ticks.append(t)
    )
    assert summary == json.loads((tmp_path / "out" / "sweep.json").read_text()) and ticks == [(4, 8), (8, 8)]
    dark, light = summary["variants"]
    assert dark["pass_rate"] == {"value": 0.5, "low": 0.15, "high": 0.85, "n": 4} and dark["refused"] == {}
    assert dark["statements"] == {"confirmed": 2, "contradicted": 1, "undecided": 1}
    assert light["pictures"] == light["pass_rate"]["n"] == 3 and light["passed"] == 1
    assert light["refused"] == {"not in <this> mood": 1} and light["painter"] == {"name": "flat/1", "shade": 200}
    assert len(summary["cells"]) == 8 and summary["cells"][4]["refused"] == "not in <this> mood"
    assert [c["passed"] for c in summary["cells"][:4]] == [True, False, True, False]
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert "light &lt;b&gt;" in page and "light <b>" not in page and "not in &lt;this&gt; mood" in page
    assert page.count("data:image/jpeg;base64,") == 4 + 7 and "http:" not in page and "https:" not in page
    assert page.count('class="confirmed"') == 3 and page.count('class="contradicted"') == 2
    with Image.open(tmp_path / "out" / "sweep.png") as sheet:
        assert sheet.width == 3 * 170 + 10
        # Under the title and the heads stand the source, then one picture a variant.
        row = [sheet.getpixel((x, 30 + 13 * 6 + 110)) for x in (15, 185, 355)]
        assert row[1] == (40, 0, 0) and row[2] == (255, 255, 255), "painted, and refused"
    names = {p.name for p in (tmp_path / "out" / "pictures").iterdir()}
    assert names == {f"{c['job']}.png" for c in summary["cells"] if "refused" not in c}


def test_without_a_verifier_there_is_no_rate(four: Path, tmp_path: Path) -> None:
    summary = sweep(four, tmp_path / "out", [flat("dark", shade=40)], rows=2)
    [figures] = summary["variants"]
    assert "pass_rate" not in figures and figures["pictures"] == 2 and summary["verifier"] is None
    assert "no verifier" in (tmp_path / "out" / "sweep.html").read_text()


def test_a_variants_pictures_are_looked_at_together(four: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    class Together(Scripted):
        batch_size = 8

        def verify_many(self, triplets: Sequence[Triplet]) -> list[Verification]:
            asked.append(len(triplets))
            return [self.verify(triplet.image or b"", triplet) for triplet in triplets]

    variants = [flat("dark", shade=40), flat("light", shade=200, refuses=True)]
    sweep(four, tmp_path / "out", variants, verifier=Together({}))
    assert asked == [4, 3]


def test_rates() -> None:
    assert share(0, 0) is None
    assert share(10, 10) == {"value": 1.0, "low": 0.7225, "high": 1.0, "n": 10}


def test_captions_cannot_break_the_page(tmp_path: Path) -> None:
    said = '<img src=x onerror="alert(1)">'
    write_triplets(tmp_path / "train", [source(0, caption=said, subject=said, image=b"no picture")])
    sweep(tmp_path / "train", tmp_path / "out", [flat("dark", shade=40)])
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page and "no picture at hand" in page


def test_held_out_pictures_are_not_painted_here_either(four: Path, tmp_path: Path) -> None:
    write_triplets(tmp_path / "test", [source(1, split="test", caption="Another.", subject="a", object="b")])
    summary = sweep(four, tmp_path / "out", [flat("dark", shade=40)])
    assert summary["variants"][0]["refused"] == {HELD_OUT_IMAGE: 1}


def test_drawn_scenes_pass(small_world: Path, tmp_path: Path) -> None:
    variant = Variant("scene", {}, lambda words: ScenePainter(words, scenes=small_world / "scenes.jsonl"))
    for setting in ("t2i", "inpaint"):
        summary = sweep(
            small_world / "triplets" / "train",
            tmp_path / setting,
            [variant],
            setting=setting,
            rows=6,
            verifier=SceneTruth(),
        )
        [figures] = summary["variants"]
        assert figures["pass_rate"]["value"] == 1.0 and figures["pictures"] + sum(figures["refused"].values()) == 6


def test_a_picture_passes_only_with_everything_that_is_said_of_it(small_world: Path, tmp_path: Path) -> None:
    class NoSubjects:
        """Finds the object of every caption and never the subject."""

        name = "no-subjects/1"

        def verify(self, image: bytes, triplet: Triplet) -> Verification:
            return Verification(Verdict.FAIL, 0.5, {triplet.object: (0.1, 0.1, 0.2, 0.2)})

    variant = Variant("scene", {}, lambda words: ScenePainter(words, scenes=small_world / "scenes.jsonl"))
    train = small_world / "triplets" / "train"
    summary = sweep(train, tmp_path, [variant], setting="inpaint", rows=6, verifier=NoSubjects())
    [figures] = summary["variants"]
    painted = figures["pictures"]
    assert painted >= 3 and figures["statements"] == {"confirmed": painted, "contradicted": painted, "undecided": 0}
    assert figures["passed"] == 0


def test_bad_arguments(four: Path, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="at least one row"):
        sweep(four, tmp_path / "out", [])
    with pytest.raises(VsreError, match="'x2i' is not one of"):
        sweep(four, tmp_path / "out", [flat("dark", shade=40)], setting="x2i")
    with pytest.raises(VsreError, match="inpaint: the painter flat/1 has"):
        sweep(four, tmp_path / "out", [flat("dark", shade=40)], setting="inpaint")


@needs_diffusers
def test_a_grid_is_checked_before_anything_is_loaded() -> None:
    models = {"sdxl": load_config("sdxl"), "sdxl-turbo": load_config("sdxl-turbo")}
    variants = grid(models, "i2i", guidance=[1, 5], strength=[0.5, 0.7])
    assert [v.label for v in variants][:2] == ["sdxl, guidance 1, strength 0.5", "sdxl, guidance 1, strength 0.7"]
    assert len(variants) == 8 and variants[7].values == {"model": "sdxl-turbo", "guidance": 5, "strength": 0.7}
    assert [v.label for v in grid(models, "t2i")] == ["sdxl", "sdxl-turbo"]
    with pytest.raises(VsreError, match=r"4 steps x strength 0.2"):
        grid(models, "i2i", strength=[0.2])
    with pytest.raises(VsreError, match="t2i does not start from a photo"):
        grid(models, "t2i", strength=[0.5])
    with pytest.raises(VsreError, match="i2i has no mask"):
        grid(models, "i2i", dilation=[0.1])


@needs_diffusers
def test_models_are_swept_on_one_load_each(
    four: Path, tmp_path: Path, tiny_sdxl_folder: Path, monkeypatch: Any
) -> None:
    from tiny_sdxl import tiny_config

    from vsre.repaint import pipelines

    loads: list[Any] = []
    real = pipelines.load_base
    monkeypatch.setattr(pipelines, "load_base", lambda *given: loads.append(given) or real(*given))
    models = {"a": tiny_config(tiny_sdxl_folder), "b": tiny_config(tiny_sdxl_folder)}
    write_triplets(four, [source(n, relation="left of") for n in range(4)])
    variants = grid(models, "inpaint", strength=[0.5, 0.99], dilation=[0.05, 0.2])
    summary = sweep(four, tmp_path / "out", variants, setting="inpaint", rows=1)
    assert len(variants) == 8 and len(loads) == 2
    assert [f["pictures"] for f in summary["variants"]] == [1] * 8
    assert {c["prompt"] for c in summary["cells"]} == {summary["cells"][0]["prompt"]}, "the same substitute throughout"
    assert [f["painter"]["mask"]["dilation"] for f in summary["variants"]] == [0.05, 0.2] * 4


@needs_diffusers
def test_a_row_begins_with_the_same_noise_in_every_variant(
    four: Path, tmp_path: Path, tiny_sdxl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_sdxl import tiny_config

    from vsre.repaint.pipelines import Pipelines

    seeds: list[list[int]] = []
    paint = Pipelines.paint

    def noted(self: Pipelines, setting: Any, prompts: Any, of_row: list[int], *more: Any, **named: Any) -> Any:
        seeds.append(list(of_row))
        return paint(self, setting, prompts, of_row, *more, **named)

    monkeypatch.setattr(Pipelines, "paint", noted)
    variants = grid({"tiny": tiny_config(tiny_sdxl_folder)}, "t2i", guidance=[1, 5])
    summary = sweep(four, tmp_path / "out", variants, rows=2)
    assert len(seeds) == 2 and seeds[0] == seeds[1] and len(set(seeds[0])) == 2
    assert len({cell["job"] for cell in summary["cells"]}) == 4, "they are other jobs all the same"
