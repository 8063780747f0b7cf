"""The diffusion painter on diffusers' own pipelines, with a random SDXL of toy size: its pictures are noise."""

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers", reason='needs diffusers: pip install "vsre[diffusion]"')

from tiny_sdxl import SIDE, photo, tiny_config

from vsre.errors import VsreError
from vsre.repaint import DiffusionPainter, Painted, PaintJob, Refused, Vocabulary, canvas, diffusion, intents, masks
from vsre.repaint.diffusion import UNKNOWN
from vsre.repaint.painter import BatchPainter, Setting
from vsre.repaint.presets import DiffusionConfig
from vsre.triplets import Triplet, image_content_id

WORDS = Vocabulary(("cat", "cow", "dog", "horse"), frozenset({"left of", "right of"}))
A, B = (0.1, 0.2, 0.45, 0.8), (0.4, 0.25, 0.95, 0.9)


def triplet(seed: int = 0, label: bool = True, **changes: Any) -> Triplet:
    data = photo(seed)
    return Triplet(
        image_content_id(data), f"{seed}.png", "cat", "left of", "dog", "The cat is left of the dog.", label, "train",
        "vsr", image=data, width=80, height=60, subject_box=A, object_box=B,
    ).replace(**changes)  # fmt: skip


@pytest.fixture(scope="module")
def config(tiny_sdxl_folder: Path) -> DiffusionConfig:
    return tiny_config(tiny_sdxl_folder)


@pytest.fixture(scope="module")
def painter(config: DiffusionConfig) -> DiffusionPainter:
    return DiffusionPainter(WORDS, config)


@pytest.fixture
def fresh(painter: DiffusionPainter, config: DiffusionConfig) -> Callable[..., DiffusionPainter]:
    """A painter with some values changed, on the weights that are loaded already."""
    return lambda **changes: DiffusionPainter(WORDS, config.changed(**changes), pipelines=painter.pipelines)


def job(
    source: Triplet, setting: Setting, painter: DiffusionPainter, seed: int = 0, truth: bool | None = None
) -> PaintJob:
    return PaintJob(source, setting, seed, painter.name, painter.parameters_for(setting), truth)


def pixels(result: Painted | Refused) -> np.ndarray:
    assert isinstance(result, Painted), result
    with Image.open(io.BytesIO(result.image)) as image:
        assert image.size == (result.width, result.height)
        return np.asarray(image.convert("RGB")).astype(int)


def test_every_setting_paints(painter: DiffusionPainter) -> None:
    assert isinstance(painter, BatchPainter) and not painter.pipelines.loaded
    for setting, size, run in (("t2i", (SIDE, SIDE), 2), ("i2i", (72, 56), 2), ("inpaint", (80, 60), 3)):
        result = painter.paint(job(triplet(), setting, painter))
        assert isinstance(result, Painted), result
        assert (result.width, result.height) == size and result.truth == "intended"
        notes = result.notes
        assert notes["steps_run"] == run, "int(steps x strength)"
        assert notes["generator_seed"] == int(result.job.id, 16) >> 1 and notes["batch"] == {"size": 1, "place": 0}
        assert notes["scheduler"]["name"] == "EulerDiscreteScheduler" and notes["dtype"] == "float32"
        assert set(notes["weights"]) == {"unet", "vae", "text_encoder", "text_encoder_2"}
        [row, *_] = result.triplets()
        assert row.provenance["truth"] == "intended" and row.provenance["prompt"] == notes["prompt"]
        assert row.origin == f"repaint:{setting}" and row.image_name == f"{result.job.id}.png"
    assert "torchvision" not in sys.modules


def test_the_three_pipelines_share_all_but_the_scheduler(painter: DiffusionPainter) -> None:
    pipes = [painter.pipelines.of(setting) for setting in ("t2i", "i2i", "inpaint")]
    assert [type(p).__name__ for p in pipes] == [
        f"StableDiffusionXL{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint")
    ]
    for part in ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        assert len({id(getattr(p, part)) for p in pipes}) == 1, part
    assert len({id(p.scheduler) for p in pipes}) == 3


def test_boxes_keep_their_place_on_the_canvas(painter: DiffusionPainter) -> None:
    """80 x 60 becomes 72 x 56 here; the library alone would make 80 x 56 of it."""
    result = painter.paint(job(triplet(), "i2i", painter))
    assert isinstance(result, Painted)
    [row] = result.triplets()
    assert (row.subject_box, row.object_box) == (A, B) and (row.width, row.height) == (72, 56)
    assert row.provenance["source_size"] == [80, 60] and row.provenance["canvas"] == [72, 56]


def test_outside_the_mask_every_pixel_is_the_photos(painter: DiffusionPainter) -> None:
    source = triplet(3)
    result = painter.paint(job(source, "inpaint", painter))
    before, after = np.asarray(Image.open(io.BytesIO(source.image or b""))).astype(int), pixels(result)
    mask = masks.make_mask(A, B, painter.config.mask)
    painted = np.asarray(mask.hard(80, 60)) > 0
    assert mask.mode == "minus object" and (before == after)[~painted].all()
    core = np.asarray(mask.soft(80, 60)) == 255
    assert (np.abs(before - after).max(axis=2) > 0)[core].mean() > 0.9, "inside, the photo is gone"
    assert isinstance(result, Painted) and result.notes["mask"]["mode"] == "minus object"
    assert result.notes["replaced_by"] == result.statements[0].subject in WORDS.classes


def test_the_library_is_given_lists_sizes_and_a_generator_a_picture(
    painter: DiffusionPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    for setting in painter.settings:
        pipe = painter.pipelines.of(setting)
        real = type(pipe).__call__

        def spy(self: Any, real: Any = real, **given: Any) -> Any:
            calls.append(given)
            return real(self, **given)

        monkeypatch.setattr(type(pipe), "__call__", spy)
    jobs = [job(triplet(seed), setting, painter) for seed in range(2) for setting in painter.settings]
    results = painter.paint_many(jobs)
    assert [r.job for r in results] == jobs and all(isinstance(r, Painted) for r in results)
    assert len(calls) == 3, "one call a setting"
    for given in calls:
        assert len(given["prompt"]) == len(given["generator"]) == 2
        assert len({id(g) for g in given["generator"]}) == 2
        assert {g.device.type for g in given["generator"]} == {"cpu"}
        assert "num_images_per_prompt" not in given
    t2i, i2i, inpaint = calls
    assert (t2i["width"], t2i["height"]) == (SIDE, SIDE) and (inpaint["width"], inpaint["height"]) == (72, 56)
    assert [image.size for image in i2i["image"]] == [(72, 56)] * 2 and i2i["strength"] == 0.5
    assert [mask.size for mask in inpaint["mask_image"]] == [(72, 56)] * 2 and inpaint["strength"] == 0.99


def test_what_shares_a_batch_changes_a_picture_by_a_grey_level_at_most(painter: DiffusionPainter) -> None:
    jobs = [job(triplet(seed), setting, painter, seed) for seed in range(2) for setting in painter.settings]
    together, alone = painter.paint_many(jobs), [painter.paint(j) for j in jobs]
    again = painter.paint_many(jobs)
    for one, other, repeated in zip(together, alone, again, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1
        assert isinstance(one, Painted) and isinstance(repeated, Painted) and one.image == repeated.image
    first, second = (painter.paint(job(triplet(), "t2i", painter, seed)) for seed in (1, 2))
    assert np.abs(pixels(first) - pixels(second)).max() > 10, "another seed, another picture"


def test_batches_are_cut_by_setting_and_size(fresh: Callable[..., DiffusionPainter]) -> None:
    painter = fresh(batch_size=2)
    tall = triplet(9, image=photo(9, 60, 80), width=60, height=80)
    sources = [triplet(0), tall, triplet(1), triplet(2)]
    results = painter.paint_many([job(source, "i2i", painter) for source in sources])
    shapes = [(r.width, r.height, r.notes["batch"]) for r in results if isinstance(r, Painted)]
    assert shapes == [
        (72, 56, {"size": 2, "place": 0}),
        (56, 72, {"size": 1, "place": 0}),
        (72, 56, {"size": 2, "place": 1}),
        (72, 56, {"size": 1, "place": 0}),
    ]


@pytest.mark.parametrize(
    ("setting", "changes", "reason"),
    [
        ("i2i", {"image": None}, diffusion.NO_PICTURE),
        ("i2i", {"image": b"no picture"}, diffusion.BAD_PICTURE),
        ("i2i", {"image": photo(0, 1, 1)}, canvas.TOO_FEW_PIXELS),
        ("inpaint", {"image": photo(0, 1, 1)}, canvas.TOO_FEW_PIXELS),
        ("i2i", {"image": photo(0, 400, 40)}, canvas.TOO_LONG),
        ("inpaint", {"subject_box": None}, masks.NO_BOXES),
        ("inpaint", {"subject_box": (1.2, 0.2, 1.6, 0.5)}, masks.OUTSIDE),
        ("inpaint", {"subject_box": (0.0, 0.0, 1.0, 1.0)}, masks.TOO_LARGE),
        ("t2i", {"relation": "opposite to"}, intents.NO_CONTRARY),
    ],
)
def test_refusals_come_before_the_model_is_loaded(
    config: DiffusionConfig, setting: Setting, changes: dict[str, Any], reason: str
) -> None:
    painter = DiffusionPainter(WORDS, config)
    result = painter.paint(job(triplet().replace(**changes), setting, painter, truth=False))
    assert isinstance(result, Refused) and result.reason == reason
    assert not painter.pipelines.loaded


@pytest.mark.parametrize("which", ["tokenizer", "tokenizer_2"])
def test_a_prompt_that_either_text_encoder_would_cut_is_refused(
    painter: DiffusionPainter, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = getattr(painter.pipelines.of("t2i"), which)
    tokens = len(tokenizer("a photo of a cat left of a dog").input_ids)
    asked: list[Any] = []

    def stand_in(setting: Setting, prompts: Any, *_: Any, **__: Any) -> Any:
        asked.extend(prompts)
        return np.random.default_rng(0).random((len(prompts), SIDE, SIDE, 3)), 2, None

    monkeypatch.setattr(painter.pipelines, "paint", stand_in)
    monkeypatch.setattr(tokenizer, "model_max_length", tokens)
    assert isinstance(painter.paint(job(triplet(), "t2i", painter)), Painted)
    monkeypatch.setattr(tokenizer, "model_max_length", tokens - 1)
    result = painter.paint(job(triplet(), "t2i", painter))
    assert isinstance(result, Refused) and result.reason == diffusion.TOO_LONG and len(asked) == 1


def test_77_tokens_is_the_limit(fresh: Callable[..., DiffusionPainter]) -> None:
    letters = len("aphotoofacatleftofadog")  # every letter is a token of the toy tokenizer, and there are two ends
    for more, fits in ((77 - 2 - letters, True), (78 - 2 - letters, False)):
        painter = fresh(prompts={"suffix": " " + "x" * more})
        assert isinstance(painter.paint(job(triplet(), "t2i", painter)), Painted) is fits


def test_a_negative_prompt_that_is_too_long_is_told(fresh: Callable[..., DiffusionPainter]) -> None:
    painter = fresh(prompts={"negative": "x" * 80})
    with pytest.raises(VsreError, match="negative prompt is longer"):
        painter.paint(job(triplet(), "t2i", painter))
    short = fresh(prompts={"negative": "blurry"})
    plain = fresh()
    told, untold = (pixels(p.paint(job(triplet(), "t2i", p))) for p in (short, plain))
    assert np.abs(told - untold).max() > 1


@pytest.mark.parametrize(("value", "reason"), [(np.nan, diffusion.NO_NUMBERS), (0.0, diffusion.BLANK)])
@pytest.mark.parametrize("setting", ["t2i", "i2i", "inpaint"])
def test_one_bad_picture_costs_none_of_its_batch(
    painter: DiffusionPainter, setting: Setting, value: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = painter.pipelines.paint

    def spoilt(*args: Any, **given: Any) -> Any:
        pictures, *ran = real(*args, **given)
        pictures[1] = value
        return pictures, *ran

    monkeypatch.setattr(painter.pipelines, "paint", spoilt)
    good, bad, fine = painter.paint_many([job(triplet(seed), setting, painter) for seed in range(3)])
    assert isinstance(good, Painted) and isinstance(fine, Painted)
    assert isinstance(bad, Refused) and bad.reason == reason


def test_latents_that_overflow_are_no_picture(config: DiffusionConfig) -> None:
    import torch

    painter = DiffusionPainter(WORDS, config)
    with torch.no_grad():
        painter.pipelines.of("t2i").unet.conv_out.bias[0] = float("nan")
    for setting in painter.settings:
        result = painter.paint(job(triplet(), setting, painter))
        assert isinstance(result, Refused) and result.reason == diffusion.NO_NUMBERS, setting


def test_memory_that_runs_out_is_told(painter: DiffusionPainter, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(self: Any, **_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(painter.pipelines.of("t2i")), "__call__", full)
    with pytest.raises(VsreError, match=r"No memory left for 1 pictures of 64 x 64.*offload"):
        painter.paint(job(triplet(), "t2i", painter))


def test_a_jobs_id_hangs_on_what_changes_its_picture(fresh: Callable[..., DiffusionPainter]) -> None:
    def ids(painter: DiffusionPainter) -> dict[str, str]:
        return {s: job(triplet(), s, painter).id for s in painter.settings}

    plain = ids(fresh())
    for changes, changed in (
        ({"batch_size": 1}, ()),
        ({"vae_slicing": True}, ()),
        ({"mask": {"dilation": 0.2}}, ("inpaint",)),
        ({"i2i": {"strength": 0.6}}, ("i2i",)),
        ({"t2i": {"guidance": 9}}, ("t2i",)),
        ({"prompts": {"suffix": ", a drawing"}}, ("t2i", "i2i", "inpaint")),
        ({"dtype": "bfloat16"}, ("t2i", "i2i", "inpaint")),
        ({"size": [56, 56]}, ("t2i", "i2i", "inpaint")),
    ):
        others = ids(fresh(**changes))
        assert tuple(s for s in plain if plain[s] != others[s]) == changed, changes


def test_a_painter_travels_to_a_worker_without_its_model(painter: DiffusionPainter) -> None:
    painter.paint(job(triplet(), "t2i", painter))
    packed = pickle.dumps(painter)
    assert len(packed) < 20_000
    unpacked: DiffusionPainter = pickle.loads(packed)
    assert not unpacked.pipelines.loaded and unpacked.parameters == painter.parameters


def test_jpeg_where_it_is_asked_for(fresh: Callable[..., DiffusionPainter]) -> None:
    painter = fresh(encoding="jpeg")
    result = painter.paint(job(triplet(), "i2i", painter))
    assert isinstance(result, Painted) and result.image.startswith(b"\xff\xd8")
    assert result.triplets()[0].image_name.endswith(".jpg")


@pytest.mark.parametrize(
    ("known", "setting", "paints"),
    [
        ({"classes": ("cat", "dog")}, "t2i", True),
        ({"classes": ("cat",)}, "t2i", False),
        ({"classes": ("cat",)}, "i2i", False),
        ({"relations": ("right of",)}, "i2i", False),
        ({"relations": ("left of",)}, "i2i", True),
        ({"classes": tuple(c for c in WORDS.classes if c != "dog")}, "inpaint", True),  # the dog is in the photo
    ],
)
def test_a_model_is_asked_for_nothing_that_it_does_not_know(
    fresh: Callable[..., DiffusionPainter], known: dict[str, tuple[str, ...]], setting: Setting, paints: bool
) -> None:
    painter = fresh(**known)
    result = painter.paint(job(triplet(), setting, painter))
    assert isinstance(result, Painted) is paints
    if isinstance(result, Refused):
        assert result.reason == UNKNOWN


def test_a_substitute_is_one_that_the_model_knows(fresh: Callable[..., DiffusionPainter]) -> None:
    for name in (c for c in WORDS.classes if c not in ("cat", "dog")):
        painter = fresh(classes=("cat", "dog", name))
        result = painter.paint(job(triplet(), "inpaint", painter))
        if isinstance(result, Painted):
            assert result.notes["replaced_by"] == name
