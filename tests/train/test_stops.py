"""What stops a run: no number, no memory, weights of another shape, a tracker that is not there."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from train_world import load, write_world
from transformers import TrainingArguments

from tiny_models import tiny_llava, tiny_vsre
from vsre.errors import VsreError
from vsre.train import DataSource, Stage, checkpoints, memory, run_stages
from vsre.train.checkpoints import complete_checkpoints, load_trained, load_weights, mark_complete, save_trained
from vsre.train.trainer import VsreTrainer
from vsre.train.vlm import run_vlm_stages

Setup = tuple[Path, dict[str, Path]]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("world")
    return tiny_vsre(folder, ("clip", "sam")), write_world(folder)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints.os, "fsync", lambda _: None)


def run(setup: Setup, out: Path, model: Any = None, report_to: tuple[str, ...] = (), **change: Any) -> dict[str, Any]:
    loaded, processor = load(setup[0])
    stage = {"name": "tune", "train": ["adapters", "llm"], "data": [setup[1]], "batch_images": 4, "max_steps": 3}
    stage |= {"save_every": 2, "lr": 1e-3, "questions_per_image": 4, **change}
    quiet = Console(file=io.StringIO(), width=120)
    return run_stages(model or loaded, processor, [stage], out, seed=1, console=quiet, report_to=report_to)


def spoilt(setup: Setup) -> Any:
    model, _ = load(setup[0])
    with torch.no_grad():
        next(model.adapters["clip"].parameters())[0, 0] = float("nan")
    return model


@pytest.mark.parametrize("cached", [True, False])
def test_a_loss_that_is_no_number_stops_and_saves_the_batch(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    if not cached:
        monkeypatch.setattr("vsre.train.run.use_features", lambda *_, **__: "not kept")
    with pytest.raises(VsreError, match=r"loss of step 1 is nan.* are in .*bad-batch\.json, the first is "):
        run(setup, tmp_path, spoilt(setup), micro_batch_images=2)
    bad = json.loads((tmp_path / "01-tune" / "bad-batch.json").read_text())
    assert bad["step"] == 1 and bad["loss"] == "nan" and all("/w" in q for q in bad["questions"])
    tensors = load_file(tmp_path / "01-tune" / "bad-batch.safetensors")
    seen = {"encoder_features.clip", "encoder_features.sam"} if cached else {"pixel_values"}
    assert tensors.keys() == {f"0.{n}" for n in ("input_ids", "labels", "position_ids", "branch", *seen)}
    assert tensors["0.input_ids"].shape[0] == 2  # the pass, not the step
    assert int(tensors["0.branch"].amax(1).sum()) == len(bad["questions"])


def test_a_gradient_that_is_no_number_saves_every_pass_of_its_step(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = torch.Tensor.backward

    def spoil(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        backward(self, *args, **kwargs)
        steps[0] += 1
        if steps[0] == 3:  # the second step's first pass
            next(p for g in trainer[0].optimizer.param_groups for p in g["params"]).grad[0] = float("inf")

    steps, trainer = [0], []
    made = VsreTrainer.create_optimizer
    monkeypatch.setattr(VsreTrainer, "create_optimizer", lambda self, *a: (trainer.append(self), made(self, *a))[1])
    monkeypatch.setattr(torch.Tensor, "backward", spoil)
    with pytest.raises(VsreError, match=r"gradient of step 2 is (inf|nan)"):
        run(setup, tmp_path, micro_batch_images=2)
    tensors = load_file(tmp_path / "01-tune" / "bad-batch.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"0", "1"}


def hungry(model: Any, limit: int) -> Any:
    """A model that has no memory for more than `limit` sequences when it learns."""
    forward = model.forward

    def bounded(*args: Any, **kwargs: Any) -> Any:
        rows = len(kwargs["input_ids"])
        if torch.is_grad_enabled() and rows > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return forward(*args, **kwargs)

    model.forward = bounded
    return model


@pytest.mark.parametrize(("limit", "fits"), [(3, 3), (2, 2), (1, 1)])
def test_a_pass_too_large_is_answered_with_one_that_fits(setup: Setup, tmp_path: Path, limit: int, fits: int) -> None:
    model = hungry(load(setup[0])[0], limit)
    asked = rf"out of memory in a pass of 6 images with up to 4 questions .*micro_batch_images: {fits} and run the same"
    with pytest.raises(VsreError, match=asked):
        run(setup, tmp_path, model, batch_images=6)
    # The same folder takes the smaller pass: how a step is cut is no part of what a run is.
    model = hungry(load(setup[0])[0], limit)
    assert run(setup, tmp_path, model, batch_images=6, micro_batch_images=fits)["stages"][0]["steps"] == 3


def test_memory_for_not_even_one_image_is_said_with_what_helps(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"Not even one image fits\. Try gradient_checkpointing: true, or lora"):
        run(setup, tmp_path, hungry(load(setup[0])[0], 0))


def test_another_error_is_not_taken_for_a_lack_of_memory(setup: Setup, tmp_path: Path) -> None:
    model, _ = load(setup[0])

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    model.forward = broken
    with pytest.raises(RuntimeError, match="something else"):
        run(setup, tmp_path, model)


def test_a_model_larger_than_the_device_is_refused_before_it_trains(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load(setup[0])
    data = [DataSource.model_validate(setup[1])]
    stage, device = Stage(name="tune", train=("llm",), data=data, lr=1, batch_images=4), torch.device("cuda")
    needed = memory.fixed_bytes(model, stage)
    assert needed == sum(p.nbytes for p in model.parameters()) + 3 * sum(
        p.nbytes for p in model.parameters() if p.requires_grad
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, needed))
    memory.check_memory(model, stage, device)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, needed - 1))
    with pytest.raises(VsreError, match=r"tune: weights, gradients and optimizer take .* the device has"):
        memory.check_memory(model, stage, device)


def test_a_model_larger_than_the_device_is_never_brought_there(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 1000))
    monkeypatch.setattr(VsreTrainer, "__init__", lambda *_, **__: pytest.fail("the Trainer moves the model"))
    with pytest.raises(VsreError, match="tune: weights, gradients and optimizer take"):
        run(setup, tmp_path / "packed")
    model, processor = load(tiny_llava(tmp_path))
    stage = {"name": "tune", "train": ["llm"], "data": [setup[1]], "batch_images": 4, "max_steps": 1}
    with pytest.raises(VsreError, match="tune: weights, gradients and optimizer take"):
        run_vlm_stages(model, processor, [stage], tmp_path / "alone", seed=1)


def test_a_checkpoint_of_another_shape_is_refused_by_name(setup: Setup, tmp_path: Path) -> None:
    model, _ = load(setup[0])
    save_trained(model, tmp_path)
    held = load_file(tmp_path / "trained.safetensors")
    name = sorted(held)[0]
    save_file({**held, name: torch.zeros(3, 5)}, tmp_path / "trained.safetensors")
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(VsreError, match=rf"{name} is \(3, 5\) there and \(.*\) in the model \(1 weights"):
        load_trained(model, tmp_path)
    save_file({n: t for n, t in held.items() if n != name}, tmp_path / "trained.safetensors")
    with pytest.raises(VsreError, match=rf"{name} is missing there"):
        load_trained(model, tmp_path)
    assert all(p.equal(before[n]) for n, p in model.named_parameters())


def test_a_model_folder_of_another_shape_is_refused_by_name(setup: Setup, tmp_path: Path) -> None:
    model, _ = load(setup[0])
    with pytest.raises(VsreError, match=r"do not fit this model: adapters\.\S+ is .* there and missing in the model"):
        load_weights(load(tiny_vsre(tmp_path, ("clip",)))[0], setup[0])
    with pytest.raises(VsreError, match="llava"):
        load_weights(model, tiny_llava(tmp_path))


def test_a_checkpoint_of_the_whole_model_still_counts(setup: Setup, tmp_path: Path) -> None:
    """Runs that were begun before checkpoints held only what trains go on."""
    trained, _ = load(setup[0])
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.5)
    trained.save_pretrained(tmp_path)
    model, _ = load(setup[0])
    load_trained(model, tmp_path)
    assert all(a.equal(b) for a, b in zip(model.parameters(), trained.parameters(), strict=True))


def test_a_disk_that_fills_at_any_file_of_a_checkpoint_leaves_the_last_one(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(setup, tmp_path / "whole", max_steps=5)
    for function, error in {
        "vsre.train.trainer.save_trained": OSError(28, "No space left on device"),
        "vsre.train.trainer.mark_complete": OSError(28, "No space left on device"),
    }.items():
        out = tmp_path / function
        original = save_trained if "save_trained" in function else mark_complete

        def full(*args: Any, original: Any = original, error: OSError = error) -> None:
            if any("checkpoint-4" in str(a) for a in args):
                raise error
            original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(function, full)
            with pytest.raises(VsreError, match=r"disk is full .*checkpoint-2, is unharmed"):
                run(setup, out, max_steps=5)
        assert [c.name for c in complete_checkpoints(out / "01-tune")] == ["checkpoint-2"]
        assert run(setup, out, max_steps=5)["stages"][0]["resumed_from"] == 2
        ours, theirs = (load_file(f / "01-tune" / "model" / "model.safetensors") for f in (out, tmp_path / "whole"))
        assert all(ours[n].equal(theirs[n]) for n in theirs)


@pytest.mark.parametrize(
    ("name", "said"), [("tensorbord", "Did you mean tensorboard"), ("comet_ml", "comet_ml: .*pip install comet-ml")]
)
def test_a_tracker_that_is_not_there_is_said_at_once(setup: Setup, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(VsreError, match=said):
        run(setup, tmp_path / "out", report_to=(name,))
    assert not (tmp_path / "out").exists()


def test_tensorboard_gets_what_the_log_has(setup: Setup, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(setup, tmp_path, report_to=("tensorboard",))
    events = EventAccumulator(str(next((tmp_path / "01-tune" / "runs").iterdir())))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/grad_norm", "train/learning_rate", "train/tokens_per_s"} <= set(tags)
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3]


def test_another_rhythm_of_checkpoints_holds_from_where_a_run_goes_on(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls, saved = VsreTrainer.training_step, [0], []

    def counted(self: VsreTrainer, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(VsreTrainer, "training_step", counted)
    with pytest.raises(KeyboardInterrupt):
        run(setup, tmp_path, max_steps=7)
    save = VsreTrainer._save_checkpoint
    monkeypatch.setattr(
        VsreTrainer,
        "_save_checkpoint",
        lambda self, *a, **k: (saved.append(self.state.global_step), save(self, *a, **k)),
    )
    run(setup, tmp_path, max_steps=7, save_every=3)
    assert saved[:2] == [3, 6], "not after every second step, as it began"
