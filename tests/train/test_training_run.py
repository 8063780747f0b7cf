from __future__ import annotations

import errno
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import SafetensorError
from train_world import load, write_world

from tiny_models import tiny_llava, tiny_vsre
from vsre.errors import VsreError
from vsre.train import checkpoints, run_stages
from vsre.train.checkpoints import complete_checkpoints
from vsre.train.logs import read_log
from vsre.train.prepare import disk_needed, store_folders
from vsre.train.stages import parse_stages
from vsre.train.trainer import VsreTrainer

Setup = tuple[Path, dict[str, Path]]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("world")
    return tiny_llava(folder), write_world(folder)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forcing bytes to the disk guards against power cuts, which no test here makes."""
    monkeypatch.setattr(checkpoints.os, "fsync", lambda _: None)


def stage(source: dict[str, Path], **change: Any) -> dict[str, Any]:
    return {
        "name": "tune",
        "train": ["adapters", "llm"],
        "data": [source],
        "batch_images": 4,
        "max_steps": 3,
        "save_every": 2,
        "lr": 1e-3,
        **change,
    }


def run(setup: Setup, out: Path, *stages: dict[str, Any], text: io.StringIO | None = None, **kwargs: Any) -> Any:
    model, processor = load(setup[0])
    console = Console(file=text or io.StringIO(), width=120)
    summary = run_stages(model, processor, stages or [stage(setup[1])], out, seed=1, console=console, **kwargs)
    return model, summary


def test_a_run_tells_what_it_does(llava: Setup, tmp_path: Path) -> None:
    text = io.StringIO()
    align = stage(llava[1], name="align", train=["adapters"])
    model, summary = run(llava, tmp_path, align, stage(llava[1], max_steps=6), text=text)
    shown = text.getvalue()
    assert "Stage align" in shown and "Stage tune" in shown
    llm_rows = [line for line in shown.splitlines() if "llm" in line]
    assert "no" in llm_rows[0] and "yes" in llm_rows[1]
    assert "36 visual tokens" in shown and "54 questions about 6 images" in shown and "min to go" in shown
    assert "\x1b[" not in shown
    log = read_log(tmp_path / "02-tune" / "log.jsonl")
    keys = {"stage", "step", "epoch", "loss", "lr", "grad_norm", "tokens_per_s", "questions_per_s", "seconds"}
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6] and set(log[0]) == keys
    assert log[-1]["loss"] < log[0]["loss"]
    assert [s["stage"] for s in summary["stages"]] == ["align", "tune"]
    saved, _ = load(Path(summary["model"]))
    assert weights_equal(saved, model)


def test_only_what_a_stage_trains_changes(llava: Setup, tmp_path: Path) -> None:
    before, _ = load(llava[0])
    after, _ = run(llava, tmp_path, stage(llava[1], train=["adapters"]))
    changed = {n for n, p in after.state_dict().items() if not p.equal(before.state_dict()[n])}
    assert changed and all("multi_modal_projector" in n for n in changed)


def test_frozen_modules_stay_in_eval_mode(llava: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = torch.nn.functional.cross_entropy

    def loss(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():  # not the comparison before the stage
            seen.append((model.model.vision_tower.training, model.model.language_model.training, model.training))
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", loss)
    model, processor = load(llava[0])
    quiet = Console(file=io.StringIO())
    run_stages(model, processor, [stage(llava[1])], tmp_path, seed=1, console=quiet)
    assert len(seen) == 3 and set(seen) == {(False, True, True)}


def test_loss_and_gradient_do_not_depend_on_how_a_step_is_cut(llava: Setup, tmp_path: Path) -> None:
    """All questions in one step: packed or alone, at once or accumulated from passes of unequal length."""
    cuts = {
        "packed": {"questions_per_image": 4, "batch_images": 15},
        "accumulated": {"questions_per_image": 4, "batch_images": 15, "micro_batch_images": 5},
        "alone": {"questions_per_image": 1, "batch_images": 54, "micro_batch_images": 6},
    }
    first = {}
    for name, cut in cuts.items():
        run(llava, tmp_path / name, stage(llava[1], max_steps=2, **cut))
        first[name] = read_log(tmp_path / name / "01-tune" / "log.jsonl")[0]
    for name in cuts:
        for figure in ("loss", "grad_norm"):
            assert first[name][figure] == pytest.approx(first["packed"][figure], rel=1e-5), (name, figure)


def test_the_same_seed_gives_the_same_curve_and_another_does_not(llava: Setup, tmp_path: Path) -> None:
    def losses(name: str, seed: int) -> list[float]:
        model, processor = load(llava[0])
        quiet = Console(file=io.StringIO())
        run_stages(model, processor, [stage(llava[1])], tmp_path / name, seed=seed, console=quiet)
        return [line["loss"] for line in read_log(tmp_path / name / "01-tune" / "log.jsonl")]

    assert losses("a", 1) == losses("b", 1) != losses("c", 2)


def test_a_finished_run_is_loaded_not_trained(llava: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, summary = run(llava, tmp_path)
    monkeypatch.setattr(VsreTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
    again, second = run(llava, tmp_path)
    assert weights_equal(first, again)
    assert summary["stages"] == second["stages"]
    with pytest.raises(VsreError, match="a run is already there"):
        run(llava, tmp_path, resume=False)


def test_another_configuration_is_refused_with_its_differences(llava: Setup, tmp_path: Path) -> None:
    run(llava, tmp_path / "run")
    with pytest.raises(VsreError, match=r"stages\[0\].lr: 0.001 there, 0.002 now"):
        run(llava, tmp_path / "run", stage(llava[1], lr=2e-3))
    other = write_world(tmp_path / "world", answers=("True", "False"))
    with pytest.raises(VsreError, match=r"data\[0\]\[0\].questions"):
        run((llava[0], other), tmp_path / "run", stage(other))
    model, processor = load(llava[0])
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    with pytest.raises(VsreError, match=r"\n  model: "):
        run_stages(model, processor, [stage(llava[1])], tmp_path / "run", seed=1)


def weights_equal(a: Any, b: Any) -> bool:
    return all(x.equal(y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (SafetensorError("Error while serializing: I/O error: No space left (os error 28)"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 280768 vs 280660"), True),
        (RuntimeError("basic_ios::clear: iostream error"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_what_counts_as_a_full_disk(error: Exception, full: bool) -> None:
    assert checkpoints.is_disk_full(error) is full


def test_a_full_disk_leaves_the_last_checkpoint_usable(
    llava: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = VsreTrainer._save_optimizer_and_scheduler

    def full_at_the_second(self: Any, folder: str) -> None:
        if folder.endswith("checkpoint-4"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, folder)

    one = stage(llava[1], max_steps=5)
    with monkeypatch.context() as patch:
        patch.setattr(VsreTrainer, "_save_optimizer_and_scheduler", full_at_the_second)
        with pytest.raises(VsreError, match=r"disk is full .*checkpoint-2, is unharmed.*run the same command"):
            run(llava, tmp_path / "run", one)
    assert [c.name for c in complete_checkpoints(tmp_path / "run" / "01-tune")] == ["checkpoint-2"]
    resumed, summary = run(llava, tmp_path / "run", one)
    assert summary["stages"][0]["resumed_from"] == 2
    assert weights_equal(resumed, run(llava, tmp_path / "whole", one)[0])


def test_a_checkpoint_that_lost_bytes_is_not_used(tmp_path: Path) -> None:
    for step in (10, 9, 11):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"12345")
        checkpoints.mark_complete(folder)
    (tmp_path / "checkpoint-11" / "weights").write_bytes(b"123")
    (tmp_path / "checkpoint-12").mkdir()
    assert [c.name for c in complete_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    checkpoints.keep_last(tmp_path, 1)
    assert [c.name for c in tmp_path.iterdir()] == ["checkpoint-10"]


def test_other_errors_are_not_taken_for_a_full_disk(
    llava: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(VsreTrainer, "_save_optimizer_and_scheduler", broken)
    with pytest.raises(RuntimeError, match="something else"):
        run(llava, tmp_path)


def test_too_little_disk_is_said_before_training(llava: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(VsreError, match=r"needs about 0\.00 GB .* are free"):
        run(llava, tmp_path / "run")
    assert not (tmp_path / "run" / "01-tune").exists()


def test_what_a_run_has_written_is_not_needed_again(llava: Setup, tmp_path: Path) -> None:
    one = parse_stages([stage(llava[1])])[0]
    sizes = []
    for out in (tmp_path / "fresh", tmp_path / "run"):
        if out.name == "run":
            run(llava, out)
        model, processor = load(llava[0])
        stores = store_folders(model, processor, [one], out / "cache")
        sizes.append(disk_needed(model, {tmp_path / "no stage yet": one}, stores))
    data = sum(file.stat().st_size for folder in llava[1].values() for file in folder.rglob("*.parquet"))
    assert sizes[0] - sizes[1] == data > 0


class Attack:
    """A pickle that creates a file when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_optimizer_state_cannot_run_code(llava: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage(llava[1], max_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr("vsre.train.carry.save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(llava, tmp_path / "run", one)
    last = complete_checkpoints(tmp_path / "run" / "01-tune")
    shutil.rmtree(last[-1])
    torch.save(Attack(tmp_path / "owned"), last[0] / "optimizer.pt")
    checkpoints.mark_complete(last[0])
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        run(llava, tmp_path / "run", one)
    assert not (tmp_path / "owned").exists()


def test_encoders_of_vsre_cannot_be_trained(llava: Setup, tmp_path: Path) -> None:
    setup = tiny_vsre(tmp_path, ("clip",)), llava[1]
    with pytest.raises(VsreError, match="frozen by design"):
        run(setup, tmp_path / "run", stage(llava[1], train=["encoders", "llm"]))


def test_gradient_checkpointing_changes_nothing_but_memory(llava: Setup, tmp_path: Path) -> None:
    logs = []
    for name, on in (("without", False), ("with", True)):
        run(llava, tmp_path / name, stage(llava[1], train=["adapters"], gradient_checkpointing=on))
        logs.append(read_log(tmp_path / name / "01-tune" / "log.jsonl"))
    for a, b in zip(*logs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_half_precision_weights_are_not_trained(llava: Setup, tmp_path: Path) -> None:
    model, processor = load(llava[0])
    with pytest.raises(VsreError, match=r"float16.*Load the model in float32"):
        run_stages(model.half(), processor, [stage(llava[1])], tmp_path, seed=1)


def test_stages_in_half_precision_follow_one_another(llava: Setup, tmp_path: Path) -> None:
    """What a stage computes in is not left round the model for the next, whose packing is proved in float32."""
    half = [stage(llava[1], name=name, bf16=True, questions_per_image=4) for name in ("a", "b")]
    model, summary = run(llava, tmp_path, *half)
    assert [s["packing_difference"] < 1e-4 for s in summary["stages"]] == [True, True]
    assert "forward" not in vars(model)
