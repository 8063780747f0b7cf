"""Further test sets of a recipe (`diagnose.also`): scenes besides its own, on which every model is diagnosed too.

OUT/also/NAME/world/         the scenes; none of the training units is among them
OUT/also/NAME/triplets/      the same as triplets
OUT/runs/MODEL/also/NAME/    a run folder; `also` in its metrics.json says what the set is and what of it was trained on

If only the artists differ, the scenes are those of the recipe's test split, so both are compared scene by scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vsre.diagnose import Engine, diagnose
from vsre.errors import VsreError
from vsre.recipes.diagnosis import AlsoSet
from vsre.recipes.schema import ModelSpec, Recipe, SceneSource
from vsre.recipes.steps import Steps, folder_name
from vsre.report.also import less_own
from vsre.report.inputs import ReportRun, open_run
from vsre.sources.protocols import HeldOut, Overlap
from vsre.sources.scenes import write_world
from vsre.sources.vsr import import_vsr
from vsre.train.checkpoints import read_json, write_json
from vsre.triplets import read_triplets


def diagnose_also(engine: Engine, model: ModelSpec, recipe: Recipe, out: Path, steps: Steps) -> dict[str, Path]:
    """Diagnose a model on every further test set; return each run folder by the set's name.

    The model's run on the recipe's test set must exist. Raises VsreError if a set has a picture that was trained on.
    """
    folders: dict[str, Path] = {}
    own = out / "runs" / folder_name(model.name)
    for name, spec in recipe.diagnose.also.items():
        about = make_set(recipe, name, out, steps)
        test = out / "also" / folder_name(name) / "triplets" / "test"
        folder = folders[name] = own / "also" / folder_name(name)
        before = read_json(folder / "metrics.json").get("also") if (folder / "metrics.json").is_file() else None
        metrics = diagnose(
            engine,
            test,
            recipe.diagnose.asked(spec.packs),
            folder,
            limit=recipe.diagnose.limit,
            per_image=recipe.diagnose.per_image,
            seed=recipe.seed,
            protocol=recipe.protocol,
            train_path=out / "triplets" / "train",
            more={"also": before or about},  # an earlier comparison is kept if we are killed here
        )
        if about["same_scenes"]:
            ours, theirs = (open_run(ReportRun(name=model.name, folder=at)) for at in (own, folder))
            about["less_own"] = less_own(ours, theirs, _alike(out / "triplets" / "test", test), seed=recipe.seed)
        write_json(folder / "metrics.json", metrics | {"also": about})
    return folders


def make_set(recipe: Recipe, name: str, out: Path, steps: Steps) -> dict[str, Any]:
    """Draw a further test set and read it into triplets, once; return what it is.

    {"how": the arguments of `write_world`, "same_scenes": as the recipe's test split, "objects": images by the number
    of things in them, "units_not_drawn", "images", "triplets", the number of its "captions" and named "classes", and
    how many of these the training data mention: "captions_in_train", "classes_in_train"}.
    """
    source = recipe.source
    assert isinstance(source, SceneSource)  # ensured by cross_faults
    how = world_of(source, recipe.diagnose.also[name]) | {"seed": recipe.seed}
    folder = out / "also" / folder_name(name)
    world, triplets = folder / "world", folder / "triplets"
    drawn = steps.once(
        world,
        how,
        lambda: write_world(world, train_units=0, dev_units=0, workers=2, **how),
        f"draw the test set {name}",
    )
    read = steps.once(
        triplets,
        how | {"protocol": recipe.protocol},
        lambda: _read(world / "annotations" / how["split"] / "test.jsonl", world, triplets, out),
        f"read the test set {name}",
        of=world,
    )
    return {
        "how": how,
        "same_scenes": shows_own_scenes(source, recipe.diagnose.also[name]),
        "objects": drawn["objects"]["test"],
        "units_not_drawn": drawn["units_not_drawn"],
        **read,
    }


def world_of(source: SceneSource, spec: AlsoSet) -> dict[str, Any]:
    """Return the arguments of `write_world` for the test split of a further set, except the seed."""
    objects = spec.objects
    if objects is None and source.objects is not None:
        objects = source.objects.by_split().get(spec.like)
    return {
        "test_units": spec.units or source.test_units,
        "size": source.size,
        "split": spec.split or source.split,
        "test_style": spec.style or source.test_style,
        "objects": {} if objects is None else {"test": objects},
        # training had the first units of its split
        "test_as": ("train", source.train_units) if spec.like == "train" else ("test", 0),
    }


def shows_own_scenes(source: SceneSource, spec: AlsoSet) -> bool:
    """Whether its scenes are those of the recipe's test split, perhaps more or fewer, or by other artists."""
    own, further = (world_of(source, s) for s in (AlsoSet(), spec))
    return all(own[key] == further[key] for key in ("split", "objects", "test_as"))


def set_faults(source: SceneSource, spec: AlsoSet) -> Iterator[str]:
    """Yield what is wrong with a further set, besides its packs and artists."""
    own, further = (world_of(source, s) for s in (AlsoSet(), spec))
    fewer = further["test_units"] <= own["test_units"]
    if fewer and spec.packs is None and {**further, "test_units": own["test_units"]} == own:
        yield "it is the recipe's own test set. Say how it differs: style, objects, split, like, packs."


def set_notes(source: SceneSource, spec: AlsoSet) -> Iterator[str]:
    """Yield what a reader of its figures must know."""
    if spec.split not in (None, source.split):
        yield (
            f"training is on a {source.split} world, so classes and captions of this {spec.split} set may be in its "
            "data. For concepts never trained on, set source.split: concept-disjoint; like: train has those that were."
        )


def _read(captions: Path, world: Path, triplets: Path, out: Path) -> dict[str, Any]:
    summary = import_vsr(
        {"test": [captions]}, triplets, images=[world / "images"], instances=[world / "instances.json"], origin="scenes"
    )
    entry = summary["splits"]["test"]
    return {"images": entry["images"], "triplets": entry["triplets"]} | _trained_on(
        out / "triplets" / "train", triplets / "test"
    )


def _trained_on(train: Path, test: Path) -> dict[str, int]:
    """Count a test set's captions and named classes, and how many of them are in the training data."""
    overlap = Overlap(HeldOut(read_triplets(test, images=False)))
    captions, classes = set[str](), set[str]()
    for t in overlap.watch(read_triplets(train, images=False)):
        captions.add(t.caption)
        classes |= {t.subject, t.object}
    if seen := overlap.summary()["images_in_train"]:
        raise VsreError(f"{test}: {seen} of its pictures are in the training data, {train}. Draw other scenes.")
    asked, named = set[str](), set[str]()
    for t in read_triplets(test, images=False):
        asked.add(t.caption)
        named |= {t.subject, t.object}
    return {
        "captions": len(asked),
        "captions_in_train": len(asked & captions),
        "classes": len(named),
        "classes_in_train": len(named & classes),
    }


def _alike(own: Path, further: Path) -> dict[str, str]:
    """Map an image_id of a further set to that of the own test picture of the same file name, hence scene."""
    ours = {t.image_name: t.image_id for t in read_triplets(own, images=False)}
    return {t.image_id: ours[t.image_name] for t in read_triplets(further, images=False) if t.image_name in ours}
