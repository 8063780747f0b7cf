"""A diffusion painter in production: its whole provenance in the ledger, and bad rows one by one."""

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_sdxl import SIDE, photo, tiny_config, tiny_sdxl

pytest.importorskip("diffusers", reason='needs diffusers: pip install "vsre[diffusion]"')

from vsre.errors import VsreError
from vsre.repaint import canvas, diffusion, masks, repaint
from vsre.repaint.ledger import ledger_rows, read_pictures
from vsre.repaint.pipelines import Pipelines
from vsre.repaint.specs import Diffusion
from vsre.triplets import Triplet, image_content_id, read_triplets, write_triplets


def triplet(data: bytes, name: str, **changes: Any) -> Triplet:
    return Triplet(
        image_content_id(data), name, "cat", "left of", "dog", "The cat is left of the dog.", True, "train", "vsr",
        data, 80, 60, (0.1, 0.2, 0.45, 0.8), (0.5, 0.25, 0.95, 0.9), {"licence": "CC BY 2.0"},
    ).replace(**changes)  # fmt: skip


def one_pixel() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (1, 1), "red").save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def spec(tiny_sdxl_folder: Path) -> Diffusion:
    config = tiny_config(tiny_sdxl_folder).changed(batch_size=2, prompts={"negative": "blurry"})
    return Diffusion(config=config.only(["inpaint"]))


SOURCE = [
    triplet(photo(0), "good.png"),
    triplet(photo(1), "outside.png", subject_box=(1.2, 0.2, 1.5, 0.8)),
    triplet(photo(2), "no-area.png", subject_box=(0.3, 0.2, 0.3, 0.8)),
    triplet(one_pixel(), "pixel.png"),
    triplet(b"no picture", "noise.png"),
    triplet(photo(3), "good too.png", subject="cow", caption="The cow is left of the dog."),
    triplet(photo(4), "horse.png", subject="horse", caption="The horse is left of the dog.", subject_box=None),
]


@pytest.fixture(scope="module")
def out(spec: Diffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusion")
    write_triplets(folder / "train", SOURCE)
    repaint(folder / "train", folder / "out", settings=("inpaint",), painter=spec)
    return folder / "out"


def test_bad_rows_are_set_aside_each_for_its_reason(out: Path) -> None:
    reasons = {row["source_name"]: row["reason"] for row in ledger_rows(out)}
    assert reasons == {
        "good.png": None,
        "outside.png": masks.OUTSIDE,
        "no-area.png": masks.OUTSIDE,
        "pixel.png": canvas.TOO_FEW_PIXELS,
        "noise.png": diffusion.BAD_PICTURE,
        "good too.png": None,
        "horse.png": masks.NO_BOXES,
    }
    assert {t.provenance["source_key"] for t in read_triplets(out)} == {SOURCE[0].key, SOURCE[5].key}


def test_the_ledger_has_all_that_a_picture_hangs_on(out: Path, spec: Diffusion) -> None:
    first, second = (row for row in ledger_rows(out) if row["status"] == "painted")
    assert first["batch"] == {"size": 2, "place": 0} and second["batch"] == {"size": 2, "place": 1}
    assert first["setting"] == "inpaint" and first["truth"] == "intended" and first["asked"] is None
    assert (first["steps"], first["steps_run"], first["guidance"], first["strength"]) == (4, 3, 7.5, 0.99)
    assert first["strength_run"] == 0.501, "3 of 4 leading steps begin at the 501st of 1,000"
    assert first["generator_seed"] == int(first["job"], 16) >> 1 and first["negative_prompt"] == "blurry"
    assert first["prompt"] == f"a photo of a {first['replaced_by']}" and first["dtype"] == "float32"
    assert first["scheduler"]["name"] == "EulerDiscreteScheduler" and set(first["versions"]) >= {"torch", "diffusers"}
    assert set(first["weights"]) == {"unet", "vae", "text_encoder", "text_encoder_2"} and first["device"] == "cpu"
    assert first["parameters"]["weights"]["model"] == first["model"] and "files" in first["model"]
    assert first["source_licence"] == "CC BY 2.0" and first["mask"]["mode"] == "apart"
    assert first["canvas"] == [72, 56] and (first["width"], first["height"]) == (80, 60)
    # The source's boxes are fractions, and its photo has 80 x 60 pixels.
    boxes = {box["name"]: [box[edge] for edge in ("x0", "y0", "x1", "y1")] for box in first["boxes"]}
    assert boxes["dog"] == pytest.approx([40, 15, 76, 54])
    assert boxes[first["replaced_by"]] == pytest.approx([8, 12, 36, 48])
    [picture] = [image for _, image in read_pictures(out, [first["job"]])]
    assert hashlib.sha256(picture).hexdigest() == first["picture"] and len(picture) == first["bytes"]


def test_values_that_are_no_numbers_and_black_pictures_are_marked(
    spec: Diffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_triplets(tmp_path / "train", [triplet(photo(n), f"{n}.png") for n in range(3)])

    def painted(
        self: Pipelines, setting: str, prompts: list[str], seeds: Any, size: tuple[int, int], *_: Any, **__: Any
    ) -> tuple[Any, int, None]:
        values = np.random.default_rng(0).random((len(prompts), size[1], size[0], 3)).astype(np.float32)
        values[0, 3, 3] = np.nan
        if len(values) > 1:
            values[1] = 0
        return values, 2, None

    monkeypatch.setattr(Pipelines, "paint", painted)
    config = spec.config.changed(batch_size=3, t2i={"steps": 2, "guidance": 5.0}).only(["t2i"])
    summary = repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",), painter=Diffusion(config=config))
    rows = list(ledger_rows(tmp_path / "out"))
    assert [row["pixels"] for row in rows] == ["no numbers", "one colour", "ok"]
    assert [row["status"] for row in rows] == ["refused", "refused", "painted"]
    assert summary["refused"] == {diffusion.NO_NUMBERS: 1, diffusion.BLANK: 1} and rows[2]["width"] == SIDE


def test_other_weights_in_the_same_folder_are_another_plan(tmp_path: Path, tiny_sdxl_folder: Path) -> None:
    write_triplets(tmp_path / "train", SOURCE[:1])
    weights = tmp_path / "weights"
    shutil.copytree(tiny_sdxl_folder, weights)
    config = tiny_config(weights).only(["i2i"])
    repaint(tmp_path / "train", tmp_path / "out", settings=("i2i",), painter=Diffusion(config=config))
    shutil.rmtree(weights)
    tiny_sdxl(tmp_path / "other", seed=1).rename(weights)
    with pytest.raises(VsreError, match=r"parameters\.i2i\.weights\.model\.files"):
        repaint(tmp_path / "train", tmp_path / "out", settings=("i2i",), painter=Diffusion(config=config))
