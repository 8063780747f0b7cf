"""Training one model of a recipe: in this process, or in those that an accelerate configuration describes.

Several processes run a command of their own, `vsre run OUT/recipe.yaml --out OUT --train-only MODEL`, because only
training is shared: the original process makes the data and diagnoses the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from rich.console import Console

from vsre.errors import VsreError
from vsre.files import locked, write_aside
from vsre.model import resolve_checkpoint
from vsre.recipes.files import as_yaml
from vsre.recipes.schema import ModelSpec, Recipe
from vsre.recipes.start import open_model, open_vlm
from vsre.recipes.steps import folder_name
from vsre.train import DataSource, run_stages
from vsre.train.carry import MODEL
from vsre.train.checkpoints import DONE, read_json
from vsre.train.launch import config_file, launch, launch_command
from vsre.train.processes import processes
from vsre.train.run import stage_folders
from vsre.train.vlm import run_vlm_stages

RECIPE = "recipe.yaml"


def model_folder(model: ModelSpec, out: Path) -> Path:
    """Return the folder of a model's stages."""
    return out / "models" / folder_name(model.name)


def begins_with(recipe: Recipe, model: ModelSpec, out: Path) -> str | None:
    """Return the checkpoint that a model's weights start from; None if they are assembled from several."""
    if model.start.model is None:
        return model.start.checkpoint or model.start.vlm
    return ends_with(recipe, next(m for m in recipe.models if m.name == model.start.model), out)


def ends_with(recipe: Recipe, model: ModelSpec, out: Path) -> str:
    """Return the checkpoint of a model once trained. Raises VsreError if there is none."""
    if model.stages:
        return str(stage_folders(model.parsed_stages(), model_folder(model, out))[-1] / MODEL)
    checkpoint = begins_with(recipe, model, out)
    if checkpoint is None:
        raise VsreError(f"{model.name}: fresh adapters are never diagnosed untrained. Give it stages.")
    return resolve_checkpoint(checkpoint)


def data_folders(recipe: Recipe, out: Path) -> dict[str, DataSource]:
    """Return where each data set's triplets and questions are once they are made."""
    found = {}
    for name, spec in recipe.data.items():
        folder = out / "data" / name
        own = spec.general is not None or spec.repaint is not None
        triplets = folder / "triplets" if own else spec.triplets_in(folder, out / "triplets" / "train")
        found[name] = DataSource(triplets=triplets, questions=folder / "questions")
    return found


def train_here(recipe: Recipe, model: ModelSpec, out: Path, console: Console) -> dict[str, Any]:
    """Train a model whose data are made; return the figures of `run_stages`. One of several processes may call it."""
    start, checkpoint = model.start, begins_with(recipe, model, out)
    stages, folder = model.stages_on(data_folders(recipe, out)), model_folder(model, out)
    if recipe.root(model).start.vlm is not None:
        net, processor = open_vlm(str(checkpoint))
        return run_vlm_stages(net, processor, stages, folder, seed=recipe.seed, console=console)
    net, processor = open_model(checkpoint, start.llm, start.encoders, fusion=start.fusion, seed=recipe.seed)
    kept: Path | bool = out / "features" if recipe.feature_cache else False
    return run_stages(net, processor, stages, folder, seed=recipe.seed, console=console, feature_cache=kept)


@contextmanager
def alone_at_training(out: Path) -> Iterator[None]:
    """Train in OUT. Raises VsreError if processes of a killed run are still training there."""
    if not processes().is_main_process:
        yield
        return
    with locked(out, "train", wait=False) as lock:
        if lock == "elsewhere":
            raise VsreError(
                f"{out}: processes of an earlier call still train here, though the call itself is gone. End them "
                "and run the same command again."
            )
        yield


def train_in_processes(recipe: Recipe, model: ModelSpec, out: Path, configuration: str) -> dict[str, Any]:
    """Do the same in the processes of an accelerate configuration. Raises VsreError if they fail."""
    written = out / RECIPE
    write_aside(written, as_yaml(recipe))
    command = launch_command(
        config_file(configuration), ["run", str(written), "--out", str(out), "--train-only", model.name]
    )
    folders = stage_folders(model.parsed_stages(), model_folder(model, out))
    code = launch(command, lambda: sum((f / DONE).is_file() for f in folders), len(folders))
    if code:
        raise VsreError(f"{model.name}: training in several processes ended with code {code}; see its output above.")
    stages = [read_json(folder / DONE) for folder in folders]
    return {
        "out_dir": str(folders[0].parent),
        "model": str(folders[-1] / MODEL),
        "seconds": round(sum(stage["train_seconds"] for stage in stages), 3),
        "stages": stages,
    }


def processes_of(configuration: str, recipe: Recipe) -> int:
    """Return how many processes share a step. Raises VsreError for a configuration of several machines, for one that
    is not available here, and for a recipe that cannot be trained that way."""
    config: Any = load_config_from_file(str(config_file(configuration)))
    if config.num_machines > 1:
        raise VsreError(
            f"--accelerate {configuration}: a recipe makes its data on one machine and trains there. For several, run "
            "its stages with vsre train on each (docs/recipes.md)."
        )
    launch_command(config_file(configuration), [])
    if config.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        for model in recipe.models:
            for stage in model.parsed_stages():
                whole = "lora" if stage.lora else "muon" if stage.optimizer == "muon" else "a `vlm`"
                if stage.lora or stage.optimizer == "muon" or recipe.root(model).start.vlm is not None:
                    raise VsreError(
                        f"--accelerate {configuration}: {model.name}, stage {stage.name}: {whole} needs whole weights, "
                        "and this spreads them over devices. Use ddp-8."
                    )
    return int(config.num_processes)
