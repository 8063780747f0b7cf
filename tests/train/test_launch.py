"""The shipped accelerate configurations, and `vsre train --accelerate NAME`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from train_world import write_world

from tiny_models import tiny_llava
from vsre.errors import VsreError
from vsre.train import launch as launch_module
from vsre.train.launch import CONFIGS, config_file, config_names, launch, launch_command, without_option
from vsre.train.logs import read_log

WAYS = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero2": DistributedType.DEEPSPEED,
    "zero3": DistributedType.DEEPSPEED,
}
SIZES = {"8": (1, 8), "4x8": (4, 32)}
MACHINES = {"MASTER_ADDR": "head", "MASTER_PORT": "29511", "NODE_RANK": "2"}


def environment_of(file: Path) -> tuple[Any, dict[str, str]]:
    """What accelerate's launcher makes of a file: its arguments, and the environment of its processes."""
    words = launch_command(file, ["train", "s.yaml"])
    args = launch_command_parser().parse_args(words[3:])
    args, defaults, _ = _validate_launch_command(args)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        return args, prepare_deepspeed_cmd_env(args)[1]
    if args.num_processes == 1:
        return args, prepare_simple_launcher_cmd_env(args)[1]
    return args, prepare_multi_gpu_env(args)


@pytest.fixture(autouse=True)
def _eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(launch_module, "find_spec", lambda _: True)
    for name, value in MACHINES.items():
        monkeypatch.setenv(name, value)


def test_one_eight_and_four_times_eight_gpus_in_every_way() -> None:
    assert config_names() == sorted(["single", *(f"{way}-{size}" for way in WAYS for size in SIZES)])
    alone = load_config_from_file(str(config_file("single")))
    assert (alone.distributed_type, alone.num_processes) == (DistributedType.NO, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_accelerate_takes_a_shipped_file_for_what_its_name_says(
    way: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, environment = environment_of(config_file(f"{way}-{size}"))
    machines, processes = SIZES[size]
    assert (args.num_machines, args.num_processes) == (machines, processes)
    assert load_config_from_file(str(config_file(f"{way}-{size}"))).distributed_type == WAYS[way]
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    if machines > 1:
        assert (args.main_process_ip, args.main_process_port, args.machine_rank) == ("head", 29511, 2)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if way == "fsdp2":
        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
        assert "SHARDED" in str(plugin.state_dict_type) and plugin.auto_wrap_policy is not None
        assert not plugin.cpu_ram_efficient_loading and not plugin.activation_checkpointing
    elif way != "ddp":
        assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
        assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == way[-1]
        assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "false"  # weights load before they are cut up
        pytest.importorskip("deepspeed")
        config = DeepSpeedPlugin().deepspeed_config
        assert config["zero_optimization"]["stage"] == int(way[-1])
        assert config["gradient_accumulation_steps"] == config["train_micro_batch_size_per_gpu"] == "auto"


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VsreError, match=r"--accelerate fsdp-8: Did you mean fsdp2-8\?"):
        config_file("fsdp-8")
    (tmp_path / "own.yaml").write_text("num_processes: 2\nnonsense: 1\n")
    assert config_file(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"
    with pytest.raises(VsreError, match="not a configuration of accelerate"):
        launch_command(tmp_path / "own.yaml", [])
    monkeypatch.setattr(launch_module, "find_spec", lambda _: None)
    with pytest.raises(VsreError, match=r"Install vsre\[deepspeed\], or take fsdp2"):
        launch_command(config_file("zero3-8"), [])
    monkeypatch.delenv("NODE_RANK")
    with pytest.raises(VsreError, match="not set: NODE_RANK"):
        launch_command(config_file("ddp-4x8"), [])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(VsreError, match="asks for 8 GPUs per machine, 4 are here"):
        launch_command(config_file("ddp-8"), [])


def test_the_command_is_run_until_every_stage_is_done(tmp_path: Path) -> None:
    """Each call does one stage more, as where FSDP cuts a model up; a call that gets no further ends it."""
    script = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); n = len(list(p.iterdir())); (p / str(n)).touch()"
    stuck, broken = "pass", "raise SystemExit(3)"

    def run(code: str, folder: Path, stages: int) -> int:
        folder.mkdir()
        return launch([sys.executable, "-c", code, str(folder)], lambda: len(list(folder.iterdir())), stages)

    assert run(script, tmp_path / "a", 3) == 0 and len(list((tmp_path / "a").iterdir())) == 3
    assert run(stuck, tmp_path / "b", 3) == 1
    assert run(broken, tmp_path / "c", 3) == 3


def test_an_option_is_taken_out_of_a_command() -> None:
    words = ["train", "s.yaml", "--accelerate", "ddp-8", "--out", "o"]
    assert without_option(words, "--accelerate") == ["train", "s.yaml", "--out", "o"]
    words[2:4] = ["--accelerate=ddp-8"]
    assert without_option(words, "--accelerate") == ["train", "s.yaml", "--out", "o"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["accelerate", "torchrun"])
def test_the_command_line_in_processes_of_a_launcher(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `--accelerate` one process from a file of one's own, by torchrun two that gloo connects."""
    monkeypatch.undo()
    source = write_world(tmp_path / "world")
    stage = {"name": "tune", "train": ["adapters"], "data": [{k: str(v) for k, v in source.items()}], "lr": 1e-3}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump([stage | {"batch_images": 4, "max_steps": 3}]))
    config = yaml.safe_load((CONFIGS / "single.yaml").read_text()) | {"use_cpu": True}
    (tmp_path / "cpu.yaml").write_text(yaml.safe_dump(config))
    train = ["train", str(tmp_path / "s.yaml"), "--checkpoint", str(tiny_llava(tmp_path)), "--out", str(tmp_path / "o")]
    launchers = {
        "accelerate": [sys.executable, "-m", "vsre", *train, "--accelerate", str(tmp_path / "cpu.yaml")],
        "torchrun": [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "vsre", *train),
        ],
    }
    known = {k: v for k, v in os.environ.items() if k not in MACHINES}
    environment = {**known, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(launchers[way], env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["step"] for line in read_log(tmp_path / "o" / "01-tune" / "log.jsonl")] == [1, 2, 3]
    assert done.stdout.count("trained:") == 1
    assert ("x 2 processes" in done.stderr) == (way == "torchrun")


EXAMPLES = Path(__file__).parents[2] / "examples"


def recorded(folder: Path, *names: str) -> str:
    """A PATH whose commands of these names write down the words that they are given, or, srun, what they run."""
    folder.mkdir()
    for name in names:
        says = (
            'shift; SLURM_NODEID=3 exec "$@"' if name == "srun" else f'echo {name} "$NODE_RANK" "$@" >> {folder}/said'
        )
        (folder / name).write_text(
            f"#!/bin/bash\n{says}\n" if name != "scontrol" else "#!/bin/bash\necho head\necho b\n"
        )
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_the_slurm_example_starts_every_machine_with_its_rank(tmp_path: Path) -> None:
    path = recorded(tmp_path / "bin", "srun", "scontrol", "vsre", "python")
    environment = {"PATH": path, "SLURM_JOB_NODELIST": "head,b", "SLURM_JOB_ID": "4711"}
    words = ["bash", str(EXAMPLES / "slurm-4x8.sbatch"), "s.yaml", "--out", "a folder"]
    subprocess.run(words, env=environment, check=True)
    assert (tmp_path / "bin" / "said").read_text() == "vsre 3 train s.yaml --out a folder --accelerate fsdp2-4x8\n"


@pytest.mark.parametrize(
    ("given", "meeting"),
    [
        ({"GPUS": "2"}, "--standalone --nproc-per-node 2"),
        ({"NODES": "4", "HEAD": "h:1"}, "--nnodes 4 --rdzv-backend c10d --rdzv-endpoint h:1 --nproc-per-node 8"),
    ],
)
def test_the_torchrun_example(tmp_path: Path, given: dict[str, str], meeting: str) -> None:
    path = recorded(tmp_path / "bin", "torchrun")
    subprocess.run([str(EXAMPLES / "torchrun.sh"), "s.yaml"], env={"PATH": path, "NODE_RANK": "-", **given}, check=True)
    assert (tmp_path / "bin" / "said").read_text() == f"torchrun - {meeting} -m vsre train s.yaml\n"
