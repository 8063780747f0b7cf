"""Looking into a VSRE model: stages, probes on tiny pools, statements, silencing and attention."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from vsre.diagnose import TransformersEngine
from vsre.diagnose.replies import Reply
from vsre.errors import VsreError
from vsre.features import complement, effective_rank, inside, linear_cka
from vsre.features.complement import _answered, _questions, attention_shares, spread
from vsre.features.inside import box_mean, draw_statements
from vsre.features.plots import write_scatter
from vsre.features.stages import stage_maps, stage_names
from vsre.relations.grammar import caption, negated
from vsre.sources.scenes import write_world
from vsre.sources.subset import write_subset
from vsre.sources.vsr import import_vsr
from vsre.triplets import read_triplets
from vsre.zoo import probes
from vsre.zoo.encoders import images_of
from vsre.zoo.pool import make_pool

inside_module = sys.modules["vsre.features.inside"]  # the package has a function of its name


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine("zoo:vsre", device="cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, train_units=16, dev_units=0, test_units=2, seed=3, size=96)
    import_vsr(
        folder / "annotations" / "caption-disjoint",
        folder / "triplets",
        images=[folder / "images"],
        instances=[folder / "instances.json"],
        origin="scenes",
    )
    return folder / "triplets" / "train"


def test_every_stage_lies_on_the_picture(engine: TransformersEngine) -> None:
    frames = torch.zeros((2, 3, 96, 96), dtype=torch.uint8)
    frames[1, :, :32, 64:] = 255  # something at the top right of the second
    found = stage_maps(engine.model, frames)
    assert list(found) == stage_names(engine.model)
    for name, cells in found.items():
        assert cells.shape[:3] == (2, 6, 6), name
        change = (cells[1] - cells[0]).norm(dim=-1)
        row, column = divmod(int(change.argmax()), 6)
        assert row <= 2 and column >= 3, name
    assert found["merged"].shape[-1] == 4 * found["clip, projected"].shape[-1]


def test_a_model_of_another_kind_is_told() -> None:
    with pytest.raises(VsreError, match="only VSRE models"):
        stage_maps(TransformersEngine("zoo:base", device="cpu").model, torch.zeros((1, 3, 96, 96)))


def test_a_box_takes_the_cells_it_covers() -> None:
    cells = torch.arange(16.0).reshape(4, 4, 1)
    assert box_mean(cells, (0.0, 0.0, 1.0, 1.0)) == pytest.approx(7.5)
    assert box_mean(cells, (0.0, 0.0, 0.25, 0.25)) == pytest.approx(0)
    assert box_mean(cells, (0.125, 0.0, 0.5, 0.25)) == pytest.approx(2 / 3)  # half of cell 0, all of cell 1
    assert box_mean(cells, (1.0, 1.0, 1.0, 1.0)) == pytest.approx(15)


def test_statements_are_true_and_as_many_as_asked_for(world: Path) -> None:
    rows = list(read_triplets(world))
    chosen = draw_statements(rows, ["left of", "right of", "above", "on"], 3, Random(0))
    assert all(t.label and t.subject_box for t in chosen)
    counts = {t.relation: sum(c.relation == t.relation for c in chosen) for t in chosen}
    there = {r: sum(t.label and t.relation == r for t in rows) for r in counts}
    assert counts == {r: min(3, n) for r, n in there.items()}
    assert draw_statements(rows, ["left of", "right of"], 3, Random(0)) == draw_statements(
        rows, ["left of", "right of"], 3, Random(0)
    )
    with pytest.raises(VsreError, match="Fewer than two"):
        draw_statements(rows, ["left of"], 3, Random(0))


def test_figures_of_a_model(engine: TransformersEngine, world: Path, tmp_path: Path) -> None:
    train, test = (make_pool(tmp_path, n, seed, 96, workers=1) for n, seed in ((40, 1), (12, 2)))
    relations = ("left of", "right of", "above", "below", "near", "touching")
    found = inside(engine.model, engine.processor, train, test, triplets=world, relations=relations, per_relation=6)
    stages = stage_names(engine.model)
    assert list(found.figures["probes"]) == stages
    assert found.figures["probes"]["clip, encoder"]["class_at_place"] > 0.1  # of 69 classes
    for pairs in found.figures["alignment"].values():
        assert len(pairs) == 6
        assert all(0 <= value <= 1 for value in pairs.values())
    tokens = found.figures["tokens"]
    assert all(1 <= tokens[s]["rank"] <= tokens[s]["width"] for s in stages)
    assert set(found.figures["relations"]) == set(stages)
    assert all(len(v) == len(found.relations) for v in found.vectors.values())
    svg = write_scatter(tmp_path / "relations.svg", found).read_text()
    assert "left of" in svg and "merged" in svg


def test_maps_are_looked_at_in_parts_and_tell_the_same(
    engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes, alignment and tokens as from maps of the whole pools, which real encoders make gigabytes of."""
    monkeypatch.setattr(probes, "BATCH", 7)
    shown: list[int] = []

    def spy(model: Any, frames: torch.Tensor) -> Any:
        shown.append(len(frames))
        return stage_maps(model, frames)

    monkeypatch.setattr(inside_module, "stage_maps", spy)
    train, test = (make_pool(tmp_path, n, seed, 96, workers=1) for n, seed in ((40, 1), (12, 2)))
    found = inside(engine.model, engine.processor, train, test).figures
    assert shown == [7, 7, 7, 7, 7, 5, 7, 5]
    fitted, asked = (stage_maps(engine.model, images_of(pool, range(len(pool)))) for pool in (train, test))
    rng = np.random.default_rng(0)
    for name, cells in asked.items():
        assert found["probes"][name] == probes.probe_maps(fitted[name], train, cells, test)
        vectors = cells.flatten(0, 2).numpy()
        norms = np.linalg.norm(vectors, axis=1)
        assert found["tokens"][name] == {
            "norm": round(float(norms.mean()), 4),
            "norm_sd": round(float(norms.std()), 4),
            "rank": round(effective_rank(vectors[rng.permutation(len(vectors))]), 1),
            "width": vectors.shape[1],
        }
    a, b = (probes.Seen.of(asked[f"{name}, encoder"], test).objects for name in ("clip", "sam"))
    assert found["alignment"]["encoder"]["clip ~ sam"] == round(linear_cka(a, b), 4)


def test_fewer_of_larger_pictures_are_encoded_together() -> None:
    assert [probes.at_once(size) for size in (96, 224, 384, 1024, 5000)] == [64, 64, 21, 3, 1]


def test_triplets_are_spread_over_the_pictures(world: Path, tmp_path: Path) -> None:
    rows = list(read_triplets(world))
    assert {t.key for t in spread(world, None)} == {t.key for t in rows}
    some = spread(world, 9)
    write_subset(world, tmp_path / "some", limit=9)
    assert len(some) == 9 and {t.key for t in some} == {t.key for t in read_triplets(tmp_path / "some")}
    assert [t.key for t in some] != [t.key for t in rows[:9]]
    assert [t.key for t in spread(world, 4)] == [t.key for t in some[:4]]


def test_an_answer_may_say_or_deny_the_statement(world: Path) -> None:
    rows = list(read_triplets(world))[:4]

    class Speaker:
        batch_images = 3

        def answer(self, asked: Any) -> list[list[Reply]]:
            return [[Reply(text=self.said[i])] * len(prompts) for i, prompts in asked]

    speaker = Speaker()
    speaker.said = {t.image: (caption if t.label else negated)(t.subject, t.relation, t.object) for t in rows}
    speaker.said |= {rows[-1].image: negated("toaster", "on", "roof")}
    asked = _questions(rows, "test-s")
    one_each = [row for i, row in enumerate(rows) if row.image not in [r.image for r in rows[:i]]]
    right = _answered(speaker, one_each, [asked[rows.index(row)] for row in one_each])
    assert right == [row.image != rows[-1].image for row in one_each]


@pytest.mark.slow
def test_silencing_all_encoders_leaves_what_no_picture_tells(engine: TransformersEngine, world: Path) -> None:
    found = complement(engine, world, limit=12, attention_of=0)
    names = ["clip", "siglip", "dinov2", "sam"]
    arms = ["all", *(f"without {n}" for n in names), *(f"only {n}" for n in names), "none"]
    assert list(found.right) == list(found.figures["accuracy"]) == arms
    assert all(len(answers) == 12 for answers in found.right.values())
    alone = [found.right[f"only {n}"] for n in names]
    union = sum(any(some) for some in zip(*alone, strict=True)) / 12
    assert found.figures["union"]["value"] == pytest.approx(union, abs=1e-4)
    missed = np.prod([1 - np.mean(some) for some in alone])
    assert found.figures["union_by_chance"] == pytest.approx(1 - missed, abs=1e-4)
    assert found.figures["accuracy"]["all"]["value"] > found.figures["accuracy"]["none"]["value"]
    assert sum(c["all"]["n"] for c in found.figures["by_meta_category"].values()) == 12
    again = complement(engine, world, limit=12, attention_of=0)
    assert again.right == found.right  # nothing stays silenced


def test_attention_is_shared_out(engine: TransformersEngine, world: Path) -> None:
    rows = list(read_triplets(world))[:3]
    before = engine.model.language_model.config._attn_implementation
    found: dict[str, Any] = attention_shares(engine, rows)
    assert engine.model.language_model.config._attn_implementation == before
    assert 0 < found["visual"] < 1
    parts = found["of_visual"]
    assert set(parts) == {"clip", "siglip", "dinov2", "sam"}
    assert np.isclose(sum(p["attention"] for p in parts.values()), 1, atol=1e-3)
    assert all(p["tokens"] == 0.25 for p in parts.values())


def test_silencing_needs_several_pictures(engine: TransformersEngine, world: Path) -> None:
    with pytest.raises(VsreError, match="about one picture"):
        complement(engine, world, limit=6)


def test_one_encoder_cannot_be_silenced() -> None:
    with pytest.raises(VsreError, match="two or more encoders"):
        complement(TransformersEngine("zoo:base", device="cpu"), Path("nowhere"))
