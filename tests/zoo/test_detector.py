"""The detector's training views, its losses, its figures, and its training: small, exact, resumable."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForObjectDetection, set_seed

from vsre.model.checkpoints import resolve_checkpoint, zoo_names
from vsre.sources.scenes import CLASSES, Placed, Scene, render
from vsre.sources.scenes.backgrounds import background
from vsre.zoo import detector, views
from vsre.zoo.detector import (
    DetectorObjective,
    batch_of,
    dense_loss,
    load_detector,
    make_detector,
    save_detector,
    token_centres,
    train_detector,
)
from vsre.zoo.detector_figures import (
    average_precision,
    best_scores,
    choose_thresholds,
    detect,
    detector_figures,
    overlaps,
    presence,
)
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.text import Fact
from vsre.zoo.train import load_settings
from vsre.zoo.views import plain_view, training_view

SIDE = 48
COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)
NAMES = CLASSES[:3]


@pytest.fixture(scope="module")
def blocks() -> Pool:
    """Scenes of one to three blocks in the colour of their class, none of which hides another."""
    rng = np.random.default_rng(0)
    images = np.full((12, SIDE, SIDE, 3), 120, np.uint8)
    objects = np.zeros((12, SIDE, SIDE), np.uint8)
    facts: list[list[Fact]] = []
    for i in range(12):
        kinds = rng.permutation(3)[: 1 + i % 3]
        facts.append([])
        for k, kind in enumerate(kinds):
            x, y = 16 * k + int(rng.integers(0, 6)), int(rng.integers(0, 30))
            w, h = (int(v) for v in rng.integers(5, 10, 2))
            images[i, y : y + h, x : x + w], objects[i, y : y + h, x : x + w] = COLOURS[kind], k + 1
            facts[-1].append(Fact(NAMES[kind], (x / SIDE, y / SIDE, (x + w) / SIDE, (y + h) / SIDE)))
    return Pool(images, objects, facts)


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """zoo.yaml's settings with a model and pools of a size for tests."""
    settings = load_settings()
    own = settings["detector"] | {
        "size": 64,
        "pool": {"scenes": 8, "seed": 3, "size": 64},
        "backbone": {"embedding_size": 8, "hidden_sizes": [8, 8, 8], "depths": [1, 1, 1]},
        "fit": {"steps": 4, "batch": 2, "lr": 1e-3, "save_every": 2},
    }
    own["detector"] = own["detector"] | dict.fromkeys(
        ("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "num_queries"), 16
    )
    return settings | {"detector": own, "held_out_scenes": {"scenes": 6, "seed": 4}}


def test_a_plain_view_boxes_what_is_visible(blocks: Pool) -> None:
    for i in range(len(blocks)):
        view = plain_view(blocks, i, SIDE)
        assert view.names == tuple(f.name for f in blocks.facts[i])
        assert np.allclose(view.boxes, [f.box for f in blocks.facts[i]])
        assert np.array_equal(view.image, blocks.images[i])


def test_training_views_box_what_is_left(blocks: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By colour alone: the pixels of a class reach as far as its boxes, and no farther but for what is hardly there."""
    monkeypatch.setattr(views, "_seen_through", lambda rng, image, size: np.asarray(image))
    monkeypatch.setattr(views.ImageFilter, "GaussianBlur", lambda radius: ImageFilter.BoxBlur(0))
    exact = unnamed = several = 0
    for i in range(300):
        view = training_view(blocks, i, SIDE)
        height, width, _ = view.image.shape
        assert ((view.boxes >= 0) & (view.boxes <= 1)).all()
        several += len(view.names) > len(blocks.facts[i % 12])
        for colour, name in zip(COLOURS, NAMES, strict=True):
            ys, xs = np.nonzero((view.image == colour).all(-1))
            boxes = view.boxes[[n == name for n in view.names]]
            if not len(boxes):
                unnamed += len(ys) > 0
                continue
            assert len(ys), f"view {i}: {name} is named and not there"
            around = np.array([xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height])
            boxed = np.array([*boxes.min(0)[:2], *boxes.max(0)[2:]])
            assert (around[:2] <= boxed[:2] + 1e-6).all() and (around[2:] >= boxed[2:] - 1e-6).all()
            exact += np.allclose(around, boxed, atol=1e-6)
    assert exact > 400 and unnamed < 100 and several > 30


def test_a_view_depends_on_its_number_alone(blocks: Pool) -> None:
    first, again, other = (training_view(blocks, i, 64) for i in (7, 7, 19))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image), "the second round of the pool looks otherwise"
    assert first.image.shape == (64, 64, 3) and first.image.dtype == np.uint8


def test_tokens_lie_in_rows_from_the_top_left() -> None:
    centres = token_centres(16 + 4, (8, 16))
    assert centres[0].tolist() == [0.125, 0.125] and centres[1].tolist() == [0.375, 0.125]
    assert centres[15].tolist() == [0.875, 0.875]
    assert centres[16:].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_the_dense_loss_asks_tokens_inside_for_the_smallest_thing_around_them() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0.9, 0.9], [0.125, 0.125, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1]]])
    classes = torch.tensor([[2, 1, -1]])
    owners = torch.full((16,), -1)
    owners[[5, 6, 9, 10]] = 0  # the four in the middle; the first token lies in the small thing
    owners[0] = 1
    tokens, logits = torch.full((1, 16, 4), 0.5), torch.full((1, 16, 3), -12.0)
    for token, owner in enumerate(owners.tolist()):
        if owner >= 0:
            tokens[0, token] = boxes[0, owner]
            logits[0, token, classes[0, owner]] = 12.0
    assert dense_loss(logits, tokens, boxes, classes, (8,)) < 1e-3
    for token, worse in ((0, 1.0), (5, 1.0), (3, 0.5)):
        wrong = logits.clone()
        wrong[0, token] = -wrong[0, token] if owners[token] >= 0 else 12.0
        assert dense_loss(wrong, tokens, boxes, classes, (8,)) > worse
    moved = tokens.clone()
    moved[0, 3] = 0.9  # nobody's
    assert dense_loss(logits, moved, boxes, classes, (8,)) < 1e-3
    moved[0, 5, 0] += 0.1
    assert dense_loss(logits, moved, boxes, classes, (8,)) > 0.05
    nothing = torch.full_like(classes, -1)
    assert torch.isfinite(dense_loss(logits, tokens, boxes, nothing, (8,)))


def test_the_loss_falls_and_the_dense_one_fades(tiny: dict[str, Any], blocks: Pool) -> None:
    set_seed(0)
    objective = DetectorObjective(tiny["detector"])
    batch = batch_of([plain_view(blocks, i, 64) for i in range(8)])
    assert batch["boxes"].shape == (8, 3, 4) and (batch["classes"][0] == -1).sum() == 2
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        loss = objective(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-3:]) < losses[0], losses
    objective.eval()
    at = {p: float(objective(**batch | {"progress": torch.tensor([p])})["loss"]) for p in (0.0, 0.35, 0.7, 1.0)}
    assert at[0.0] > at[0.35] > at[0.7] == at[1.0]


def test_overlaps_and_average_precision() -> None:
    a, b = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)
    shifted = (0.1, 0.0, 0.6, 0.5)
    assert overlaps([a], [a, b, shifted])[0].tolist() == pytest.approx([1, 0, 0.4 / 0.6])
    truth = [[("cat", a)], [("cat", b)], [("dog", a)]]
    perfect = [[("cat", a, 0.9)], [("cat", b, 0.8)], [("dog", a, 0.3)]]
    assert all(ap == pytest.approx(1) for of in average_precision(perfect, truth).values() for ap in of.values())
    # A second box of the same cat is wrong; ranked before the other cat it halves what comes after.
    doubled = [[("cat", a, 0.9), ("cat", a, 0.85)], [("cat", b, 0.8)], []]
    found = average_precision(doubled, truth, (0.5,))
    assert found["cat"][0.5] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101) and found["dog"][0.5] == 0
    loose = [[("cat", shifted, 0.9)], [("cat", b, 0.8)], []]
    found = average_precision(loose, truth, (0.5, 0.75))
    assert found["cat"][0.5] == pytest.approx(1) and found["cat"][0.75] == pytest.approx(51 / 101 / 2)


def test_presence_and_the_threshold() -> None:
    a, b = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)
    truth = [[("cat", a), ("dog", b)], [("cat", b)]]
    found = [[("cat", a, 0.9), ("dog", b, 0.6), ("cat", b, 0.4)], [("cat", b, 0.7), ("dog", a, 0.2)]]
    at = presence(found, truth, 0.3)
    assert (at[""].said, at[""].right, at[""].there) == (4, 3, 3)
    assert at["cat"].precision == pytest.approx(2 / 3) and at["dog"].recall == 1
    assert presence(found, truth, 0.65)[""].recall == pytest.approx(2 / 3)
    present, absent = choose_thresholds(found, truth)
    assert 0.4 < present <= 0.6 and absent == present, "all that is there scores at least 0.6"
    assert best_scores(found, truth).tolist() == [0.9, 0.6, 0.7]
    assert best_scores([[("cat", a, 0.2), ("cat", b, 0.4)]], [[("cat", b), ("dog", a)]]).tolist() == [0.4, 0]
    faint = [[("cat", a, 0.9)]] * 3 + [[("cat", a, 0.3), ("dog", b, 0.4), ("dog", a, 0.4)]]
    assert choose_thresholds(faint, [[("cat", a)]] * 4) == (0.41, 0.3), "one cat scores 0.3 only, beside two wrong dogs"
    wrong_place = [[("cat", b, 0.9)], []]
    assert presence(wrong_place, truth, 0.5)[""].right == 0


class Oracle(torch.nn.Module):
    """A model that knows the pictures it was shown, and its processor."""

    def __init__(self, blocks: Pool) -> None:
        super().__init__()
        self.config = type("Config", (), {"id2label": dict(enumerate(NAMES))})
        self.device = torch.device("cpu")
        self.known = {blocks.images[i].tobytes(): blocks.facts[i] for i in range(len(blocks))}

    def __call__(self, images: list[list[Fact]]) -> Any:
        return images

    def processor(self, images: list[Image.Image], return_tensors: str) -> Any:
        inputs = {"images": [self.known.get(np.asarray(image).tobytes(), []) for image in images]}
        return type("Batch", (dict,), {"to": lambda self, device: self})(inputs)

    def post_process_object_detection(self, outputs: Any, threshold: float, target_sizes: Any) -> Any:
        return [
            {
                "scores": torch.linspace(0.5, 0.9, len(facts)),
                "boxes": torch.tensor([f.box for f in facts]).reshape(-1, 4),
                "labels": torch.tensor([NAMES.index(f.name) for f in facts], dtype=torch.long),
            }
            for facts in outputs
        ]


def test_figures_of_an_oracle(blocks: Pool) -> None:
    oracle = Oracle(blocks)
    processor = type(
        "Processor",
        (),
        {
            "__call__": lambda self, **given: oracle.processor(**given),
            "post_process_object_detection": lambda self, *args, **given: oracle.post_process_object_detection(
                *args, **given
            ),
        },
    )()
    found = detect(oracle, processor, [Image.fromarray(image) for image in blocks.images], batch=5)
    assert [[name for name, _, _ in row] for row in found] == [[f.name for f in facts][::-1] for facts in blocks.facts]
    figures, more = detector_figures(oracle, processor, blocks, SIDE)
    classes = more["classes"]
    assert figures["mAP .5:.95"] == figures["recall"] == figures["mean IoU"] == 1
    assert figures["mAP .5, as in training"] < 0.2, "it does not know those pictures"
    assert set(classes) == set(NAMES) and all(of["mAP .5:.95"] == 1 for of in classes.values())


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_files(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before a checkpoint and between two, stopped by a time limit, and called again when all is done."""

    def dies_at(number: int) -> Any:
        def view(pool: Pool, i: int, size: int, seed: int = 0) -> Any:
            if i >= number:
                raise KeyboardInterrupt
            return training_view(pool, i, size, seed)

        return view

    make_pool(tmp_path / "pools", 8, 3, 64, workers=1)
    make_pool(tmp_path / "pools", 6, 4, 64, workers=1)
    said: list[str] = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pools").symlink_to(tmp_path / "pools")
    assert train_detector(tiny, tmp_path / "whole", tmp_path / "one", say=said.append)
    for number in (2, 6):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(detector, "training_view", dies_at(number))
            train_detector(tiny, tmp_path / "killed", tmp_path / "two", say=said.append)
    assert (tmp_path / "killed" / "detector" / "checkpoint-2").is_dir()
    assert not train_detector(tiny, tmp_path / "killed", tmp_path / "two", seconds=0, say=said.append)
    assert "run again" in said[-1] and not (tmp_path / "two").exists()
    assert train_detector(tiny, tmp_path / "killed", tmp_path / "two", say=said.append)
    assert train_detector(tiny, tmp_path / "killed", tmp_path / "two", say=said.append), (
        "again, with nothing left to do"
    )
    for file in sorted((tmp_path / "one" / "detector").iterdir()):
        assert (tmp_path / "two" / "detector" / file.name).read_bytes() == file.read_bytes(), file.name
    card = json.loads((tmp_path / "one" / "detector" / "card.json").read_text())
    assert card["made"]["steps"] == 4 and "threshold" in card["figures"] and card["classes"]
    assert all(
        t.dtype == torch.float16
        for t in load_file(tmp_path / "one/detector/model.safetensors").values()
        if t.is_floating_point()
    )
    model, processor = load_detector(str(tmp_path / "one" / "detector"))
    assert model.dtype == torch.float32 and processor.size == {"height": 64, "width": 64}


def test_what_is_shipped_is_what_was_trained(tiny: dict[str, Any], blocks: Pool, tmp_path: Path) -> None:
    """Convolutions computed in bfloat16 while training say nearly the same as the loaded model."""
    set_seed(0)
    objective, _ = make_detector(tiny["detector"], blocks)
    objective.eval()
    save_detector(objective.model, 64, tmp_path)
    loaded, processor = load_detector(str(tmp_path))
    images = [Image.fromarray(blocks.images[i]) for i in range(3)]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (3, 3, 64, 64) and pixels.min() >= 0 and pixels.max() <= 1
    with torch.no_grad():
        ours, theirs = objective.model(pixel_values=pixels), loaded(pixel_values=pixels)
    assert torch.allclose(ours.encoder_last_hidden_state[0], theirs.encoder_last_hidden_state[0], atol=0.1)
    assert next(objective.parameters()).dtype == torch.float32, "saving leaves the trained weights alone"


shipped = pytest.mark.skipif("detector" not in zoo_names(), reason="no detector here: run `vsre zoo train detector`")


@shipped
def test_the_shipped_detector_loads_like_any_other() -> None:
    folder = Path(resolve_checkpoint("zoo:detector"))
    assert sum(f.stat().st_size for f in folder.iterdir()) < 4.5e6
    assert {f.suffix for f in folder.iterdir()} == {".json", ".md", ".safetensors"}
    weights = load_file(folder / "model.safetensors")
    assert {t.dtype for t in weights.values() if t.is_floating_point()} == {torch.float16}
    model = AutoModelForObjectDetection.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    assert type(model).__name__ == "RTDetrV2ForObjectDetection" and model.dtype == torch.float32
    assert type(processor).__name__.endswith("Pil") and "torchvision" not in sys.modules
    assert model.config.id2label == dict(enumerate(CLASSES))
    card = json.loads((folder / "card.json").read_text())
    assert card["made"]["steps"] > 0 and card["classes"].keys() <= set(CLASSES)


@shipped
def test_the_shipped_detector_finds_what_is_plainly_there() -> None:
    """Two things alone in a picture of any size, each in the right place; nothing on an empty street."""
    model, processor = load_detector(resolve_checkpoint("zoo:detector"))
    card = json.loads((Path(resolve_checkpoint("zoo:detector")) / "card.json").read_text())
    things = {name: Placed(name, x, 0.85, 1.1, 0.36) for name, x in (("zebra", 0.25), ("airplane", 0.72))}
    scene = Scene("road", 3, tuple(things.values()))
    images = [render(scene, size) for size in (96, 192, 300)] + [render(scene, 192).resize((320, 240))]
    for row in detect(model, processor, images):
        best = {name: box for name, box, score in reversed(row) if score >= card["figures"]["threshold"]}
        assert best.keys() >= things.keys()
        assert all(overlaps([best[name]], [placed.box])[0, 0] > 0.6 for name, placed in things.items())
    (nothing,) = detect(model, processor, [Image.fromarray(background("road", 3, 192))])
    assert not [name for name, _, score in nothing if score >= card["figures"]["threshold"]]
