"""`vsre train --accelerate NAME`: the same command in several processes, started by `accelerate launch`.

The configurations are files in accelerate's own format, in accelerate/ next to this module; a path to another one works
too. Several machines find each other as under torchrun, by MASTER_ADDR, MASTER_PORT and NODE_RANK.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from vsre.errors import VsreError

CONFIGS = Path(__file__).parent / "accelerate"

_MACHINES = {
    "MASTER_ADDR": "--main_process_ip",
    "MASTER_PORT": "--main_process_port",
    "NODE_RANK": "--machine_rank",
}


def config_names() -> list[str]:
    """The names of the shipped configurations."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


def config_file(name: str) -> Path:
    """The path of a shipped configuration, or of one's own. Raises VsreError if there is none."""
    shipped, own = CONFIGS / f"{name}.yaml", Path(name).expanduser()
    if shipped.is_file():
        return shipped
    if own.is_file():
        return own
    near = difflib.get_close_matches(name, config_names(), n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise VsreError(
        f"--accelerate {name}: {hint}Shipped are {', '.join(config_names())}; a path to a YAML file will do."
    )


def launch_command(file: Path, arguments: Sequence[str]) -> list[str]:
    """The command that runs `vsre ARGUMENTS` in the processes that an accelerate configuration describes.

    Raises VsreError if the file is no such configuration, or needs devices, a package or an address that are missing.
    """
    try:
        config: Any = load_config_from_file(str(file))
    except (ValueError, TypeError, KeyError) as error:
        raise VsreError(
            f"{file}: not a configuration of accelerate ({error}). Make one with accelerate config."
        ) from error
    each = config.num_processes // config.num_machines
    if not config.use_cpu and each > (there := torch.cuda.device_count()):
        raise VsreError(
            f"{file.name}: asks for {each} GPUs per machine, {there} are here. Copy the file, change num_processes, "
            "and give its path to --accelerate."
        )
    if config.distributed_type == DistributedType.DEEPSPEED and not find_spec("deepspeed"):
        raise VsreError(f"{file.name}: needs the package deepspeed. Install vsre[deepspeed], or take fsdp2.")
    more: list[str] = []
    if config.num_machines > 1:
        if missing := [name for name in _MACHINES if name not in os.environ]:
            raise VsreError(
                f"{file.name}: {config.num_machines} machines find each other by the environment variables "
                f"{', '.join(_MACHINES)}; not set: {', '.join(missing)}."
            )
        more = [word for name, flag in _MACHINES.items() for word in (flag, os.environ[name])]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), *more]
    return [*launcher, "-m", "vsre", *arguments]


def launch(command: Sequence[str], done: Callable[[], int], stages: int) -> int:
    """Run a command until `done()` reports that all `stages` are finished; returns its exit code.

    If the weights are sharded, a process trains one stage, so the command is run again for the next, unless it made no
    progress.
    """
    while (before := done()) < stages:
        code = subprocess.run(command, check=False).returncode
        if code or done() == before:
            return code or 1
    return 0


def without_option(arguments: Sequence[str], option: str) -> list[str]:
    """The command-line words without an option and its value, given as two words or with an equals sign."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == option:
            next(words, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept
