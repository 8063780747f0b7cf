"""Experiment files: the shipped ones plan at every scale, and every mistake says what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_fakes import EXPERIMENT, fake_plan, fraction_plan, written

from vsre.errors import VsreError
from vsre.experiments import files as files_module
from vsre.experiments.files import experiment_names, load_experiment, plan_experiment, scale_names
from vsre.recipes.files import RecipeFaults


def plan(name: str, **how: Any) -> Any:
    return plan_experiment(load_experiment(name), **how)


@pytest.mark.parametrize("scale", scale_names())
@pytest.mark.parametrize("name", experiment_names())
def test_every_shipped_experiment_plans_at_every_scale(name: str, scale: str) -> None:
    found = plan(name, scale=scale)
    assert found.runs == len(found.seeds) * sum(len(recipe.models) for recipe in found.recipes.values()) > 0
    kind = {"embedded": "scenes", "layouts": "layouts", "full": "vsr"}[scale]
    for recipe in found.recipes.values():
        assert recipe.source.kind == kind
        used = {data for model in recipe.models for stage in model.stages for data in stage["data"]}
        assert used == set(recipe.data)
        for model in recipe.models:
            names = [stage.name for stage in model.parsed_stages()]
            aligned = scale == "full" or name in ("gain", "encoders")  # of zoo:merged's adapters some are taken
            assert names == ([] if name == "sensitivity" else ["align", "tune"] if aligned else ["tune"])
    assert {f"{c.before}" for c in found.experiment.compare} <= {
        f"{variant}: {model.name}" for variant, recipe in found.recipes.items() for model in recipe.models
    }


def test_arms_of_an_experiment_take_equal_steps() -> None:
    for name in experiment_names():
        steps = {
            tuple((s.name, s.max_steps, s.batch_images, s.questions_per_image) for s in model.parsed_stages())
            for recipe in plan(name).recipes.values()
            for model in recipe.models
        }
        assert len(steps) == 1, name


def test_a_scale_may_have_variants_of_its_own() -> None:
    assert "unseen things" in plan("generalisation").recipes
    assert "unseen things" not in plan("generalisation", scale="layouts").recipes


@pytest.mark.parametrize(("name", "tail"), [("encoders", ""), ("gain", ", rewrite (large)")])
def test_a_set_of_encoders_is_compared_with_its_parts_and_all_that_have_one_less(name: str, tail: str) -> None:
    found = plan(name)
    models = {m.name: m for m in found.recipes["main"].models if m.name.endswith(tail)}
    sets = {name: {choice.id for choice in m.start.encoders} for name, m in models.items()}
    assert len(sets) == 15
    for after, mine in sets.items():
        below = {o for o in sets if sets[o] < mine and len(sets[o]) in (1, len(mine) - 1)}
        before = [c.before.removeprefix("main: ") for c in found.experiment.compare if c.after == f"main: {after}"]
        alone = [] if after == f"clip{tail}" else [f"clip{tail}"]
        assert sorted(before) == sorted(below or alone), after
        assert {k for k in ("clip", "siglip", "dinov2", "sam") if models[after].factors[k]} == mine
    assert all(contrast.secondary for contrast in found.experiment.compare)


def test_set_takes_the_place_of_what_variants_share(tmp_path: Path) -> None:
    experiment = load_experiment(str(written(tmp_path)))
    changed = plan_experiment(
        experiment, changes=["source.train_units=7", "stages.tune.max_steps=3", "protocol=clean-concepts"]
    )
    clean, paper = changed.recipes["clean"], changed.recipes["paper"]
    assert clean.source.train_units == paper.source.train_units == 7
    assert [s.max_steps for m in clean.models for s in m.parsed_stages()] == [3, 3]
    assert (clean.protocol, paper.protocol) == ("clean-concepts", "paper"), "variants lie over it"
    general = plan("generalisation", changes=["diagnose.templates=2"]).recipes
    sets = {name: [*recipe.diagnose.also] for name, recipe in general.items() if recipe.diagnose.also}
    assert sets == {"all": ["another artist", "five things"], "unseen things": ["seen things"]}
    assert {recipe.diagnose.templates for recipe in general.values()} == {2}, "a scale's variants keep it"


def test_a_scale_is_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(
        "source: {kind: scenes, train_units: 3, test_units: 1}\nstarts: {merged: {checkpoint: 'zoo:merged'}}\n"
        "stages: {tune: {train: [adapters]}}\n"
    )
    scales = {"lab": {"protocol": "clean-concepts"}, "embedded": {"protocol": "nonsense"}}
    experiment = load_experiment(str(written(tmp_path, scales=scales)))
    recipe = plan_experiment(experiment, scale=str(path)).recipes["clean"]
    assert (recipe.source.train_units, recipe.protocol) == (3, "clean-concepts")


def faults(folder: Path, **changes: Any) -> list[str]:
    with pytest.raises(RecipeFaults) as caught:
        fake_plan(folder, **changes)
    return caught.value.faults


def compared(**how: Any) -> dict[str, Any]:
    return {"before": "clean: plain", "after": "clean: tuned"} | how


def part(*relations: str, **how: Any) -> dict[str, Any]:
    return compared(relations=[*relations], together="parts", **how)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"questoin": "x"}, "unknown key 'questoin'. Did you mean 'question'?"),
        ({"plots": [{"kind": "dots", "name": "a", "titel": "A"}]}, "unknown key 'titel'. Did you mean 'title'?"),
        ({"plots": [{"kind": "dot", "name": "a", "title": "A"}]}, "'differences', 'effects' or 'cost'"),
        ({"plots": [{"kind": "effects", "name": "a", "title": "A"}]}, "plot a: effects are those of a `fraction`"),
        (
            {"plots": [{"kind": "differences", "name": "a", "title": "A", "y": ["bias"]}]},
            "y: bias is not tested; differences can be drawn of test_s.acc_t, test_g.acc_t, unseen.acc_t",
        ),
        ({"plots": [{"kind": "lines", "name": "a", "title": "A", "x": "step"}]}, "Did you mean 'steps'?"),
        ({"plots": [{"kind": "lines", "name": "a", "title": "A"}]}, "give its name as `x`"),
        ({"plots": [{"kind": "cost", "name": "a", "title": "A", "y": []}]}, "plots.0.y: "),
        ({"seeds": [0, 0]}, "seeds: give different seeds"),
        ({"variants": {}}, "there must be a variant"),
        ({"recipe": EXPERIMENT["recipe"] | {"seed": 5}}, "leave `seed` out"),
        ({"variants": {"clean": {"seed": 5}, "paper": {}}}, "leave `seed` out"),
        ({"scales": {"embedded": {"seed": 5}}}, "leave `seed` out"),
        ({"primary": ["test_t"]}, "'test_s', 'test_g' or 'unseen'"),
        ({"variants": {"a b": {}, "a-b": {}}, "compare": []}, "'a b' and 'a-b' have the same folder"),
        ({"variants": {"+": {}}, "compare": []}, "'+' has no letter"),
        ({"variants": {"..": {}}, "compare": []}, "'..' has no letter"),
        ({"variants": {"Locks": {}}, "compare": []}, "'Locks': a run has a folder locks of its own"),
        (
            {"scales": {"embedded": {"variants": {"clean": None}}}},
            "scales: embedded: variants: give a mapping for each",
        ),
        ({"scales": {"embedded": {"variants": ["clean"]}}}, "scales: embedded: variants: give a mapping for each"),
        ({"plots": [{"kind": "dots", "name": "../a", "title": "A"}]}, "plots.0.name: '../a' has to name a file"),
        ({"plots": [{"kind": "dots", "name": "..", "title": "A"}]}, "'..' has to name a file"),
        ({"plots": [{"kind": "dots", "name": "a/b", "title": "A"}]}, "'a/b' has to name a file"),
        ({"plots": [{"kind": "dots", "name": "a", "title": title} for title in "AB"]}, "2 plots are called 'a'"),
        ({"scales": {"embeded": {}}}, "no scale 'embeded'. Did you mean 'embedded'?"),
        ({"compare": [{"before": "clean: plan", "after": "paper: tuned"}]}, "Did you mean 'clean: plain'?"),
        (
            {"compare": [{"before": "clean: plain", "after": "paper: tuned", "relations": ["left off"]}]},
            "no relation 'left off'. Did you mean 'left of'?",
        ),
        (
            {"compare": [compared(relations=[True])]},
            'compare.0.relations: write "on" in quotes',
        ),
        ({"compare": [compared(after="clean: plain")]}, "compare.0: 'clean: plain' is compared with itself"),
        (
            {"compare": [compared(relations=["on", "above"]), compared(relations=["above", "on"], secondary=True)]},
            "compare: 'clean: plain' and 'clean: tuned' are compared 2 times about the same",
        ),
        ({"compare": [part("on")]}, "together, parts: one comparison alone"),
        (
            {"compare": [part("on"), part("above", before="paper: plain")]},
            "need the same `before`, not 'clean: plain' and",
        ),
        ({"compare": [part("on"), part("above", trained=False)]}, "leave `trained` out"),
        ({"compare": [part("on"), part(after="paper: plain")]}, "every part needs `relations` of its own"),
        ({"compare": [part("on"), part("on", "above")]}, "together, parts: 'on' is in 2 parts"),
        ({"recipe": {**EXPERIMENT["recipe"], "protocoll": "clean"}}, "Did you mean 'protocol'?"),
        ({"fraction": {"runs": 2, "axes": {"a": [{}]}, "effects": []}}, "a `fraction` goes with a single variant"),
    ],
)
def test_mistakes_say_what_was_meant(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    found = faults(tmp_path, **changes)
    assert len(found) == 1 and says in found[0], found


def test_comparisons_that_differ_in_anything_are_each_made(tmp_path: Path) -> None:
    compare = [compared(), compared(trained=True), compared(trained=False), compared(relations=["on"])]
    compare += [{"before": "clean: tuned", "after": "clean: plain"}, part("above"), part("under", "below")]
    assert len(fake_plan(tmp_path, compare=compare).experiment.compare) == 7


def test_a_variant_of_a_scale_is_merged_over_the_one_of_its_name(tmp_path: Path) -> None:
    scales = {"embedded": {"variants": {"paper": {"diagnose": {"limit": 7}}, "drawn": {}}}}
    recipes = fake_plan(tmp_path, scales=scales).recipes
    assert [*recipes] == ["clean", "paper", "drawn"]
    assert (recipes["paper"].protocol, recipes["paper"].diagnose.limit) == ("paper", 7)


def test_a_scale_of_ones_own_says_which_it_is_like(tmp_path: Path) -> None:
    """What an experiment has for a scale must not get lost without a word where a copy has another name."""
    scales = {"embedded": {"variants": {"drawn": {}}, "source": {"train_units": 7}}}
    experiment = load_experiment(str(written(tmp_path, scales=scales)))
    text = (Path(files_module.__file__).parent / "scales" / "embedded.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text("like: embedded\n" + text)
    plan = plan_experiment(experiment, scale=str(mine))
    assert plan.recipes.keys() == {"clean", "paper", "drawn"} and plan.recipes["drawn"].source.train_units == 7
    mine.write_text(text)
    with pytest.raises(VsreError, match=r"settings of its own for embedded\. .*`like: embedded`"):
        plan_experiment(experiment, scale=str(mine))
    mine.write_text("like: embeded\n" + text)
    with pytest.raises(VsreError, match="Did you mean 'embedded'"):
        plan_experiment(experiment, scale=str(mine))


def test_what_a_file_extends_stands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labs").mkdir()
    text = (Path(files_module.__file__).parent / "scales" / "embedded.yaml").read_text()
    (tmp_path / "labs" / "base.yaml").write_text("name: base\ntitle: Base\nfeature_cache: false\n")
    (tmp_path / "labs" / "mine.yaml").write_text("like: embedded\nextends: base.yaml\n" + text)
    written(tmp_path / "labs", scales={"embedded": {"extends": "base.yaml"}})
    monkeypatch.chdir(tmp_path)
    plain, own = load_experiment("first"), load_experiment("labs/fake.yaml")
    for found in (plan_experiment(plain, scale="labs/mine.yaml"), plan_experiment(own)):
        assert {recipe.feature_cache for recipe in found.recipes.values()} == {False}


def test_a_fraction_has_one_variant_at_every_scale(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="a `fraction` goes with a single variant, and embedded has main, more"):
        fraction_plan(tmp_path, [0], scales={"embedded": {"variants": {"more": {"protocol": "paper"}}}})


def test_figures_that_decide_are_asked_for(tmp_path: Path) -> None:
    recipe = {**EXPERIMENT["recipe"], "diagnose": {"packs": ["test-s", "pool"]}}
    for primary in (["unseen"], ["unseen", "test_g"]):
        (fault,) = faults(tmp_path, recipe=recipe, primary=primary)
        assert fault == "primary: unseen needs the pack held-out; add it to diagnose.packs, or leave unseen out."
    assert fake_plan(tmp_path, recipe=recipe, primary=["test_s", "test_g"]).recipes
    variants = {"clean": {}, "paper": {"diagnose": {"packs": ["test-s"]}}}
    (fault,) = faults(tmp_path, recipe=recipe, primary=["test_s", "test_g"], variants=variants)
    assert fault.startswith("paper: primary: test_g needs the pack pool")
    assert fake_plan(tmp_path, recipe=recipe).recipes, "nothing is said to decide: what is asked does"
    (fault,) = faults(tmp_path, recipe={**EXPERIMENT["recipe"], "diagnose": {"packs": ["stage1"]}})
    assert fault == "diagnose.packs: one of test-s, pool, held-out is needed."


def test_an_arm_of_another_scale_may_be_compared(tmp_path: Path) -> None:
    compare = [{"before": "clean: plain", "after": "drawn: tuned"}]
    scales = {"layouts": {"variants": {"drawn": {}}}}
    assert fake_plan(tmp_path, compare=compare, scales=scales).recipes.keys() == {"clean", "paper"}
    with pytest.raises(RecipeFaults):
        fake_plan(tmp_path, compare=compare)


def test_a_fault_of_all_variants_is_said_once_and_of_one_with_its_name(tmp_path: Path) -> None:
    recipe = {**EXPERIMENT["recipe"], "sedes": 1}
    found = faults(tmp_path, recipe=recipe, variants={"clean": {}, "paper": {"protocol": "papr"}})
    assert len(found) == 2
    assert any(fault.startswith("unknown key 'sedes'") for fault in found)
    assert any(fault.startswith("paper: protocol 'papr'") for fault in found)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"scale": "embeded"}, "no scale 'embeded'. Did you mean 'embedded'?"),
        ({"scale": "no/such.yaml"}, "no such scale file"),
        ({"seeds": []}, "--seeds: give different whole numbers"),
        ({"seeds": [1, 1]}, "--seeds"),
        ({"seeds": [-1]}, "--seeds"),
        ({"changes": ["source"]}, "--set source: write KEY=VALUE"),
        ({"changes": ["seed=99"]}, "--set seed=99: every variant is run with each of the seeds; use --seeds"),
        ({"changes": ["seeds=[0]"]}, "use --seeds"),
        ({"changes": ["a..b=1"]}, "--set a..b=1: write KEY=VALUE"),
        ({"changes": ["source.train_units=[3"]}, "not valid YAML"),
        ({"changes": ["source.train_unit=3"]}, "Did you mean 'train_units'?"),
        ({"changes": ["sorce.train_units=3"]}, "Did you mean 'source'?"),
    ],
)
def test_what_is_asked_for_wrongly_is_said(how: dict[str, Any], says: str) -> None:
    with pytest.raises(VsreError) as caught:
        plan("first", **how)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["protocol=clean-concepts"], ["Every variant has protocol of its own."]),
        (["protocol=clean"], ["Every variant has protocol of its own."]),
        (["data.unused.pack=pool"], ["No arm uses the data 'unused'. There are: general, original, rewritten."]),
        (["data.orignal.pack=pool"], ["No arm uses the data 'orignal'. Did you mean 'original'?"]),
        (["stages.tun.max_steps=3"], ["No arm uses stages.tun, or each sets this itself."]),
        (["stages.tune.max_steps=3", "stages.tune.max_steps=4"], ["--set stages.tune.max_steps=4 overrides it."]),
        (["source.train_units=3", "source.size=192", "protocol=paper"], ["", "Every variant has protocol of its own."]),
    ],
)
def test_a_change_that_changes_nothing_is_refused(changes: list[str], says: list[str]) -> None:
    with pytest.raises(RecipeFaults) as caught:
        plan("leaks", changes=changes)
    assert len(caught.value.faults) == len(says)
    for fault, why in zip(caught.value.faults, says, strict=True):
        assert f"changes nothing in any recipe. {why}".strip() == fault[fault.index("changes nothing") :]
        assert fault.startswith(tuple(f"--set {change}: " for change in changes))


def test_a_change_of_some_variants_is_one(tmp_path: Path) -> None:
    """And so is one without which there would be no recipe; what is so already may be said."""
    found = fake_plan(tmp_path).recipes
    experiment = load_experiment(str(written(tmp_path)))
    changed = plan_experiment(experiment, changes=["protocol=clean-concepts"]).recipes
    assert changed["paper"] == found["paper"] and changed["clean"] != found["clean"]
    assert plan_experiment(experiment, changes=["stages.tune.max_steps=900"]).recipes == found
    recipe = {**EXPERIMENT["recipe"], "starts": None}
    experiment = load_experiment(str(written(tmp_path, recipe=recipe)))
    assert plan_experiment(experiment, changes=["starts={merged: {checkpoint: 'zoo:merged'}}"]).recipes == found


def test_an_experiment_that_is_not_there() -> None:
    with pytest.raises(VsreError, match="Did you mean 'gain'"):
        load_experiment("gian")
    with pytest.raises(VsreError, match="no such experiment file"):
        load_experiment("gian.yaml")
