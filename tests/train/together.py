"""A training that any number of processes share, connected by gloo as torchrun would connect them."""

from __future__ import annotations

import gc
import io
import os
import signal
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from rich.console import Console
from train_world import PROCESSES, load

from vsre.train import run_stages
from vsre.train.fingerprint import RUN
from vsre.train.launch import config_file
from vsre.train.trainer import VsreTrainer

PACKS = 4


def stages(source: dict[str, Path]) -> list[dict[str, Any]]:
    """Two stages whose epochs of 15 packs end in a step of three."""
    common = {"data": [source], "questions_per_image": 4, "save_every": 3, "batch_images": PACKS, "lr": 1e-3}
    return [
        {"name": "align", "train": ["adapters"], "max_steps": 5, **common},
        {"name": "tune", "train": ["adapters", "llm"], "epochs": 2, "warmup": 0.3, **common},
    ]


def cut_up_on_a_cpu() -> None:
    """FSDP2 as the shipped file sets it up. accelerate takes it for GPUs only, so it is told that gloo has some."""
    file = load_config_from_file(str(config_file("fsdp2-8")))
    os.environ |= {key.upper(): str(value).lower() for key, value in file.fsdp_config.items()}
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_AUTO_WRAP_POLICY": file.fsdp_config["fsdp_auto_wrap_policy"],
        "FSDP_STATE_DICT_TYPE": file.fsdp_config["fsdp_state_dict_type"],
    }
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda self, *_, **__: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))


def train(
    model_folder: Path,
    source: dict[str, Path],
    out: Path,
    rank: int,
    of: int,
    port: int,
    die_at: int | None,
    cache: bool,
    fsdp: bool,
    resume: bool,
) -> None:
    """This process's share; gone in the `die_at`-th step of the second stage."""
    if of > 1 or fsdp:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(of), "ACCELERATE_USE_CPU": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if fsdp:
        cut_up_on_a_cpu()
    torch.set_num_threads(1)
    gc.freeze()
    os.fsync = lambda _: None  # type: ignore[assignment]
    step = VsreTrainer.training_step

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == die_at and self.args.output_dir.endswith("02-tune"):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    VsreTrainer.training_step = counted  # type: ignore[method-assign]
    model, processor = load(model_folder)
    quiet = Console(file=io.StringIO())
    run_stages(model, processor, stages(source), out, seed=1, console=quiet, feature_cache=cache, resume=resume)
    assert of == 1 or torch.distributed.get_world_size() == of
    assert of == 1 or fsdp or wait_of_processes() >= timedelta(hours=12)


def wait_of_processes() -> timedelta:
    """How long a process waits for the others."""
    backend: Any = torch.distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    limit: timedelta = backend.options._timeout
    return limit


def together(
    of: int,
    model_folder: Path,
    source: dict[str, Path],
    out: Path,
    die_at: int | None = None,
    cache: bool = True,
    fsdp: bool = False,
) -> list[int | None]:
    """Train in `of` processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A new run is begun as one that must not be there already, in every process.
    given = (of, port, die_at, cache, fsdp, (out / RUN).is_file())
    shares = [PROCESSES.Process(target=train, args=(model_folder, source, out, rank, *given)) for rank in range(of)]
    for share in shares:
        share.start()
    for share in shares:
        share.join()
    return [share.exitcode for share in shares]
