"""Making a recipe's question sources step by step: the triplets each asks about, and its questions.

OUT/data/NAME/drawn/     triplets of scenes of its own, with their world
OUT/data/NAME/subset/    a part of the triplets
OUT/data/NAME/derived/   with what the algebra derives from them
OUT/data/NAME/triplets/  repainted, or of general questions
OUT/data/NAME/questions/
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.recipes.data_options import DERIVED, DRAWN, SUBSET
from vsre.recipes.general import general_mix, general_source
from vsre.recipes.painted import look_at_painted
from vsre.recipes.schema import DataSpec, GeneralQuestions, LayoutSource, Recipe, Repaint, SceneSource, VsrSource
from vsre.recipes.steps import Steps, digests
from vsre.repaint import repaint
from vsre.repaint.plan import HELD_OUT
from vsre.repaint.specs import VerifierSpec
from vsre.rewrite import load_pack, rewrite
from vsre.sources.derive import derive
from vsre.sources.protocols import apply_protocol
from vsre.sources.scenes import write_world
from vsre.sources.subset import write_subset
from vsre.sources.vsr import read_vsr
from vsre.triplets import read_triplets, write_triplets

WORLD, SCENES, REPAINT = "world", "scenes.jsonl", "repaint"


def question_sources(recipe: Recipe, out: Path, steps: Steps) -> dict[str, Any]:
    """Make each question source once; return, by its name, the summary of each of its steps."""
    return {
        name: _general(name, spec.general, recipe, out, steps)
        if spec.general is not None
        else _asked(name, spec, recipe, out, steps)
        for name, spec in recipe.data.items()
    }


def _general(name: str, spec: GeneralQuestions, recipe: Recipe, out: Path, steps: Steps) -> dict[str, Any]:
    folder = out / "data" / name
    made = steps.once(
        folder,
        {"general": spec.model_dump(), "mix": general_mix(spec), "seed": recipe.seed},
        lambda: general_source(spec, out / "pools", folder, recipe.seed),
        f"general questions: {name}",
    )
    return {"rewrite": made}


def _asked(name: str, spec: DataSpec, recipe: Recipe, out: Path, steps: Steps) -> dict[str, Any]:
    """Make the triplets, repaint them if the recipe says so, then rewrite them through their pack."""
    folder = out / "data" / name
    summary, triplets = _triplets(name, spec, recipe, out, steps)
    of = out / "triplets" if triplets == out / "triplets" / "train" else triplets
    # How the triplets were chosen has to be in the settings of everything made from them.
    chosen = {"triplets": spec.chosen()} if spec.chosen() else {}
    if spec.repaint is not None:
        summary |= _repainted(name, spec.repaint, chosen, triplets, of, recipe, out, steps)
        triplets, of = folder / "triplets", folder / REPAINT
    questions = folder / "questions"
    templates = {"templates": spec.templates} if spec.templates else {}
    summary["rewrite"] = steps.once(
        questions,
        {"pack": spec.pack, "per_triplet": spec.per_triplet, "seed": recipe.seed, **templates, **chosen},
        lambda: rewrite(triplets, questions, str(spec.pack), spec.per_triplet, recipe.seed, templates=spec.templates),
        f"rewrite: {name}",
        of=of,
        reads={f"the template pack {spec.pack}": load_pack(str(spec.pack)).digest},
    )
    return summary


def _triplets(name: str, spec: DataSpec, recipe: Recipe, out: Path, steps: Steps) -> tuple[dict[str, Any], Path]:
    """Choose and add triplets; return the summary of each step, and where the triplets are."""
    made: dict[str, Any] = {}
    folder, at, of = out / "data" / name, out / "triplets" / "train", out / "triplets"
    chosen = spec.chosen()
    if (scenes := spec.scenes) is not None:
        drawn = folder / DRAWN
        beside = {
            "source": recipe.source.model_dump(exclude_none=True),
            "protocol": recipe.protocol,
            "seed": recipe.seed,
        }
        made[DRAWN] = steps.once(
            drawn,
            {"scenes": chosen["scenes"], "beside": beside},
            lambda: _draw(scenes.units, recipe, drawn, out / "triplets" / "test"),
            f"draw scenes: {name}",
            of=of,
        )
        at = of = drawn
    if spec.cut:
        whole, part = at, folder / SUBSET
        made[SUBSET] = steps.once(
            part,
            {"triplets": {k: v for k, v in chosen.items() if k != "algebra"}, "seed": recipe.seed},
            lambda: write_subset(whole, part, limit=spec.limit, without=spec.without, seed=recipe.seed),
            f"choose triplets: {name}",
            of=of,
        )
        at = of = part
    if spec.algebra:
        said, derived = at, folder / DERIVED
        made[DERIVED] = steps.once(
            derived,
            {"triplets": chosen},
            lambda: derive(said, derived, spec.algebra, without=spec.without),
            f"derive triplets: {name}",
            of=of,
        )
    return made, spec.triplets_in(folder, out / "triplets" / "train")


def _draw(units: int, recipe: Recipe, folder: Path, test: Path) -> dict[str, Any]:
    """Draw scenes like those of the source's train split, and read them under the recipe's protocol."""
    source = recipe.source
    split = source.split if isinstance(source, SceneSource) else "caption-disjoint"
    world = folder / WORLD
    drawn = write_world(
        world,
        train_units=units,
        dev_units=0,
        test_units=0,
        # Independent of the name: data sets of a recipe share their scenes, so that they differ only in what is asked.
        seed=int(hashlib.sha256(f"{recipe.seed}/own scenes".encode()).hexdigest()[:12], 16),
        size=source.size if isinstance(source, SceneSource | LayoutSource) else 192,
        split=split,
        objects=source.objects.by_split() if isinstance(source, SceneSource) and source.objects else {},
        workers=2,
    )
    removed = Counter[str]()
    triplets = read_vsr(
        [world / "annotations" / split / "train.jsonl"],
        [world / "images"],
        [world / "instances.json"],
        split="train",
        origin="scenes",
    )
    kept = apply_protocol(triplets, read_triplets(test, images=False), recipe.protocol, removed)
    written = write_triplets(folder, kept)
    if not written:
        raise VsreError(
            f"{folder}: the protocol {recipe.protocol} leaves none of the {drawn['captions']['train']:,} triplets of "
            "the scenes drawn: the test has all of their classes. Leave `scenes` out, or use another protocol."
        )
    return {"triplets": written, "pictures": drawn["images"], "removed": dict(removed)}


def _repainted(
    name: str, spec: Repaint, chosen: dict[str, Any], triplets: Path, of: Path, recipe: Recipe, out: Path, steps: Steps
) -> dict[str, Any]:
    """Paint from the triplets, and check the pictures if the recipe names a verifier."""
    folder = out / "data" / name
    painted, own = folder / "triplets", folder / DRAWN / WORLD / SCENES
    scenes = own if own.is_file() else out / WORLD / SCENES
    # Triplets that were chosen are not in a folder next to the test's.
    held_out = [f for f in (out / "triplets" / split for split in HELD_OUT) if any(f.glob("*.parquet"))]
    made = {
        "repaint": steps.once(
            # Not in the painted folder: an interrupted repaint resumes on its own.
            folder / REPAINT,
            spec.model_dump() | {"seed": recipe.seed, **chosen},
            lambda: repaint(
                triplets,
                painted,
                settings=spec.settings,
                per_triplet=spec.per_triplet,
                limit=spec.limit,
                seed=recipe.seed,
                painter=spec.painter_spec(scenes if scenes.is_file() else None),
                verifier=VerifierSpec(verifier=spec.verifier) if spec.verifier else None,
                held_out=held_out,
                instances=recipe.source.instances if isinstance(recipe.source, VsrSource) else [],
                workers=2 if spec.draws else 1,
            ),
            f"repaint: {name}",
            of=of,
            reads=digests(spec.painter, spec.verifier),
        )
    }
    if looks := spec.verifier:
        drawn = isinstance(recipe.source, SceneSource)
        made["shown"] = steps.once(
            folder / "shown",
            {"verifier": looks, "seed": recipe.seed, "drawn": drawn},
            lambda: look_at_painted(painted, looks, drawn=drawn, seed=recipe.seed),
            f"look at what was painted: {name}",
            of=folder / REPAINT,
            reads=digests(looks),
        )
    return made
