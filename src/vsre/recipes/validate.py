"""Checking a recipe before anything is loaded: its checkpoints, data, packs, token budgets and batches.

Every fault is reported, not only the first. What could not be checked becomes a note.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vsre.errors import VsreError
from vsre.model import ENCODERS
from vsre.model.build import ROOM_FOR_TEXT
from vsre.recipes.also import set_faults, set_notes
from vsre.recipes.hub import Checkpoints, OutOfReach
from vsre.recipes.near import nearest
from vsre.recipes.schema import LayoutSource, ModelSpec, Recipe, SceneSource, VsrSource
from vsre.recipes.shape import Shape, encoder, shape_of
from vsre.recipes.workload import Questions, question_lengths
from vsre.rewrite.packs import load_pack, shipped_packs
from vsre.sources.scenes import check_style
from vsre.sources.vsr import SPLITS
from vsre.train.lora import check_lora
from vsre.train.vlm import one_question

MARKS = re.compile(r"\{%-?\s*generation\b")
"""What marks the assistant's words in a chat template."""


@dataclass
class Findings:
    """What is wrong, what could not be checked, and what was found out: shapes by model, lengths by data set."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    lengths: dict[str, Questions] = field(default_factory=dict)
    unchecked: dict[str, dict[str, None]] = field(default_factory=dict)
    """Names, in order, by the reason why something about them was not checked."""

    def fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def check(recipe: Recipe, *, online: bool, gpus: int = 1, paths: bool = True, to_run: bool = False) -> Findings:
    """Check every part of a recipe.

    `online`: the hub may be queried. `gpus`: processes that share a step. `paths`: the source's files are needed.
    `to_run`: a checkpoint that is neither here nor within reach on the hub is a fault, not a note.
    """
    found, checkpoints = Findings(), Checkpoints(online=online)
    if paths:
        _check_paths(recipe, found)
    _check_packs(recipe, found)
    _check_also(recipe, found, to_run=to_run)
    unseen = recipe.protocol == "clean-concepts" or getattr(recipe.source, "split", "") == "concept-disjoint"
    if unseen and any(spec.general for spec in recipe.data.values()):
        found.note("General questions show and name all classes, also the test's; only the spatial ones avoid those.")
    for model in recipe.models:
        _check_start(recipe, model, checkpoints, found, to_run=to_run)
        _check_template(model, checkpoints, found)
        for stage in model.parsed_stages():
            try:
                stage.micro_batch(gpus)
                if to_run:
                    check_lora([stage])
                if recipe.root(model).start.vlm is not None:
                    one_question(stage)
            except VsreError as error:
                found.fault(f"{model.name}: {error}")
    for model in recipe.models:
        _check_budget(recipe, model, found)
    for reason, names in found.unchecked.items():
        found.note(f"{reason}: {', '.join(names)}")
    return found


def _check_paths(recipe: Recipe, found: Findings) -> None:
    source = recipe.source
    wanted: list[Path] = []
    if isinstance(source, VsrSource):
        wanted = [*source.train, *source.test, *source.images, *source.instances]
    elif isinstance(source, LayoutSource):
        files = (file for side in SPLITS[source.split].values() for file in side)
        wanted = [*(source.annotations / file for file in files), *source.instances]
    for path in wanted:
        if not path.exists():
            found.fault(f"source: {path} does not exist.{_path_hint(path)}")


def _path_hint(path: Path) -> str:
    """Return a hint for a path that does not exist: the nearest name in its folder, or that the folder lacks it."""
    there = next((p for p in path.parents if p.is_dir()), None)
    if there is None or there == Path():
        return " Set your own path."
    first = path.relative_to(there).parts[0]
    near = difflib.get_close_matches(first, [p.name for p in there.iterdir()], n=1)
    return f" Did you mean {there / near[0]}?" if near else f" {there} has no {first}."


def _check_packs(recipe: Recipe, found: Findings) -> None:
    for name, spec in recipe.data.items():
        for fault in _pack_faults([spec.pack] if spec.pack else []):
            found.fault(f"data {name}: {fault}")
        try:
            n = len(load_pack(spec.pack).templates) if spec.pack else 0
            for key, wanted in {"per_triplet": spec.per_triplet, "templates": spec.templates}.items():
                if wanted and wanted > n:
                    found.fault(f"data {name}: {key} {wanted} is more than the {n} templates of {spec.pack}.")
            found.lengths[name] = question_lengths(spec, recipe.seed)
        except VsreError:
            continue
    for fault in _pack_faults(recipe.diagnose.packs):
        found.fault(f"diagnose: {fault}")


def _check_also(recipe: Recipe, found: Findings, *, to_run: bool) -> None:
    """Check the further test sets; `cross_faults` checks that they have scenes."""
    source = recipe.source
    if not isinstance(source, SceneSource):
        return
    for name, spec in recipe.diagnose.also.items():
        where = f"diagnose.also {name}"
        for fault in (*_pack_faults(spec.packs or []), *set_faults(source, spec)):
            found.fault(f"{where}: {fault}")
        for note in set_notes(source, spec):
            found.note(f"{where}: {note}")
        try:
            check_style(spec.style or source.test_style)
        except VsreError as error:
            (found.fault if to_run else found.note)(f"{where}: {error}")


def _pack_faults(packs: Iterable[str]) -> Iterator[str]:
    for pack in packs:
        if not pack.endswith((".yaml", ".yml")) and pack not in shipped_packs():
            yield f"there is no template pack {pack!r}. {nearest(pack, shipped_packs())}"
            continue
        try:
            load_pack(pack)
        except VsreError as error:
            yield str(error)


def _check_start(recipe: Recipe, model: ModelSpec, checkpoints: Checkpoints, found: Findings, *, to_run: bool) -> None:
    """Check that a model's checkpoints exist and its shape can be determined."""
    if model.start.llm is not None and not model.stages:
        found.fault(f"{model.name}: fresh adapters are never diagnosed untrained. Give it stages.")
    if model.start.checkpoint is not None and model.start.encoders and not model.stages:
        found.fault(f"{model.name}: without some of its encoders a model is never diagnosed untrained. Give it stages.")
    for name in _checkpoints_of(model):
        try:
            there = checkpoints.find(name)
            if to_run and there.source in (None, "package"):
                found.fault(f"{model.name}: {name} is not in the local cache, and the hub cannot be reached.")
            elif there.note:
                found.unchecked.setdefault(there.note, {})[name] = None
        except VsreError as error:
            found.fault(f"{model.name}: {error}")
    for choice in model.start.encoders if model.start.llm is not None else ():
        try:
            encoder(choice, checkpoints)
        except OutOfReach:
            continue  # noted with the checkpoint
        except VsreError as error:
            found.fault(f"{model.name}: {error}")
    if model.start.model is not None or any(checkpoints.known(name) is None for name in _checkpoints_of(model)):
        return
    try:
        alike = (found.shapes.get(m.name) for m in recipe.models if m.start == model.start)
        found.shapes[model.name] = next(filter(None, alike), None) or shape_of(model.start, checkpoints)
    except OutOfReach as error:
        found.note(f"{model.name}: {error}")
    except VsreError as error:
        found.fault(f"{model.name}: {error}")


def _checkpoints_of(model: ModelSpec) -> list[str]:
    """Return the checkpoints that a model names; an unknown encoder name is left for `shape_of` to refuse."""
    start = model.start
    fresh = start.encoders if start.llm is not None else []
    encoders = [ENCODERS[c.id].checkpoint if c.id in ENCODERS else c.id for c in fresh]
    named = [name for name in encoders if "/" in name or ":" in name]
    return [name for name in (start.checkpoint, start.llm, start.vlm, *named) if name is not None]


def _check_template(model: ModelSpec, checkpoints: Checkpoints, found: Findings) -> None:
    """Check that a model's start has a chat template; VSRE on a language model brings its own."""
    name = model.start.checkpoint or model.start.vlm or model.start.llm
    if name is None or checkpoints.known(name) is None:
        return
    template = checkpoints.template(name)
    if model.start.llm is not None:
        if template == "":
            found.note(f"{name}: has no chat template of its own; VSRE brings one, in LLaVA-1.5's form.")
    elif template is None:
        found.unchecked.setdefault("chat template not checked", {})[name] = None
    elif not template:
        found.fault(
            f"{model.name}: {name} has no chat template, so it is unknown how to ask it. Put a chat_template.jinja "
            "next to its config, or use a checkpoint that was tuned to answer."
        )
    elif model.stages and model.start.checkpoint is not None and not MARKS.search(template):
        found.fault(
            f"{model.name}: the chat template of {name} has no {{% generation %}} marks, so it does not say what is to "
            "be learnt. Put the marks around the assistant's text, or use `vlm` instead of `checkpoint`."
        )


def _check_budget(recipe: Recipe, model: ModelSpec, found: Findings) -> None:
    """Check that picture and question fit into the language model's positions."""
    shape = found.shapes.get(recipe.root(model).name)
    if shape is None:
        return
    if shape.guessed:
        found.note(f"{recipe.root(model).name}: its visual tokens are not known; {shape.picture_tokens:,} are assumed.")
        return
    if shape.picture_tokens + ROOM_FOR_TEXT > shape.positions:
        found.fault(
            f"{model.name}: {shape.picture_tokens} visual tokens leave {shape.positions - shape.picture_tokens} of the "
            f"language model's {shape.positions} positions for text, fewer than {ROOM_FOR_TEXT}. Use fewer encoders, a "
            "budget of tokens, or a language model with a longer context."
        )
        return
    for stage in model.stages:
        for name in stage["data"]:
            lengths = found.lengths.get(name)
            if lengths and shape.picture_tokens + lengths.longest > shape.positions:
                found.fault(
                    f"{model.name}: a picture ({shape.picture_tokens} tokens) and the longest question of {name} "
                    f"(about {lengths.longest:.0f}) are more than {shape.positions} positions. Use shorter templates."
                )
