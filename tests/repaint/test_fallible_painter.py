"""The painter that plays a diffusion model whose faults are counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_repaint_recipe import recipe_of
from test_scene_painter import WORDS, scene_of, triplet

from vsre.errors import VsreError
from vsre.recipes.schema import Repaint
from vsre.repaint import Painted, PaintJob, Refused
from vsre.repaint.edits import truth_of
from vsre.repaint.fallible_painter import FalliblePainter
from vsre.repaint.painter import Setting
from vsre.repaint.specs import Fallible
from vsre.repaint.verify import SceneTruth, check_many, kept_of, policy_of
from vsre.sources.scenes import DRAWABLE
from vsre.triplets import read_triplets


def paint(faults: float, seed: int, relation: str = "left of", truth: bool = True, setting: Setting = "t2i") -> Any:
    painter = FalliblePainter(WORDS, faults=faults, size=96)
    return painter.paint(
        PaintJob(triplet("cat", relation, "dog"), setting, seed, painter.name, painter.parameters, truth)
    )


def shown(made: Painted) -> bool | None:
    said = made.statements[0]
    return truth_of(scene_of(made), said.subject, said.relation, said.object)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(DRAWABLE)), st.booleans(), st.integers(0, 10**6), st.sampled_from([0.0, 1.0]))
def test_a_fault_shows_the_opposite_and_says_the_same(relation: str, truth: bool, seed: int, faults: float) -> None:
    made = paint(faults, seed, relation, truth)
    if isinstance(made, Refused):
        return  # a cat is not inside a dog
    (said,) = made.statements
    assert (said.relation, said.label, made.truth, made.others) == (relation, truth, "intended", ())
    assert said.subject_box is None and said.object_box is None
    assert shown(made) is (not truth if made.notes["fault"] else truth)
    assert faults == 1 or not made.notes["fault"]


def test_so_many_fail_as_are_asked_for_and_always_the_same_ones() -> None:
    made = [paint(0.3, seed) for seed in range(120)]
    wrong = [not shown(m) for m in made if isinstance(m, Painted)]
    assert len(wrong) > 100 and 0.17 < sum(wrong) / len(wrong) < 0.43  # three standard errors
    again = paint(0.3, 7)
    assert isinstance(again, Painted) and isinstance(made[7], Painted) and again.image == made[7].image


def test_more_faults_have_the_fewer_among_them_and_all_else_is_the_same() -> None:
    right, some, more = ([paint(faults, seed) for seed in range(40)] for faults in (0.0, 0.3, 0.6))
    failed = [{i for i, m in enumerate(made) if m.notes["fault"]} for made in (right, some, more)]
    assert not failed[0] and failed[1] < failed[2]
    assert all(a.image == b.image for i, (a, b) in enumerate(zip(right, more, strict=True)) if i not in failed[2])
    assert all(m.job.parameters["faults"] == 0.6 for m in more), "provenance says what painted it"


def test_a_verifier_that_sees_the_truth_drops_the_faults() -> None:
    truth = SceneTruth()

    def kept(faults: float) -> list[bool]:
        made = [m for m in (paint(faults, seed) for seed in range(10)) if isinstance(m, Painted)]
        checks, policy = check_many(made, truth), policy_of(truth)
        return [isinstance(kept_of(m, c, truth.name, policy), Painted) for m, c in zip(made, checks, strict=True)]

    assert all(kept(0.0)) and not any(kept(1.0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs to know one thing"),
        ({"settings": ["inpaint"], "overrides": {"faults": 0.3}}, "draws t2i and i2i"),
        ({"settings": ["t2i"], "overrides": {"faults": 1.3}}, "less than or equal to 1"),
        ({"settings": ["t2i"], "overrides": {"faults": 0.3, "steps": 2}}, "needs to know one thing"),
    ],
)
def test_mistakes_in_recipes(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Repaint(painter="fallible", **given)


def test_a_recipe_paints_with_faults(small_world: Path, tmp_path: Path) -> None:
    from rich.console import Console

    from vsre.recipes.data_sets import question_sources
    from vsre.recipes.steps import Steps

    given = {"painter": "fallible", "overrides": {"faults": 1.0}, "settings": ["t2i", "i2i"], "limit": 3}
    recipe = recipe_of(small_world, tmp_path / "out", **given)
    spec = recipe.data["mine"].repaint
    assert spec is not None and isinstance(spec.painter_spec(None), Fallible)
    made = question_sources(recipe, tmp_path / "out", Steps(tmp_path / "out", Console(quiet=True)))["mine"]
    assert set(made["repaint"]["by_truth"]) == {"intended"}
    rows = list(read_triplets(tmp_path / "out" / "data" / "mine" / "triplets"))
    assert rows and {t.origin for t in rows} <= {"repaint:t2i", "repaint:i2i"}
    truth = SceneTruth()
    assert not any((truth.verify(b"", t).verdict.name == "PASS") == t.label for t in rows)
    assert all(json.loads(json.dumps(t.provenance)) for t in rows)
    with pytest.raises(VsreError):
        recipe_of(small_world, tmp_path / "two", painter="fallible", overrides={"faults": -1}, settings=["t2i"])
