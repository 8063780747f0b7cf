"""Any image-text model fine-tuned as it is: the right tokens learnt, the loss falls, a kill costs nothing, it loads."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from train_world import PROCESSES, write_world
from transformers import AutoModelForImageTextToText, AutoProcessor

from tiny_families import tiny_blip2, tiny_instructblip, tiny_paligemma
from tiny_families_native import tiny_gemma3, tiny_kosmos2, tiny_mllama
from tiny_families_qwen import tiny_qwen_vl
from tiny_families_tiles import tiny_idefics3, tiny_llava_next
from tiny_models import tiny_llava, tiny_vsre
from vsre.diagnose import Prompt, TransformersEngine
from vsre.errors import VsreError
from vsre.train import DataSource, Stage
from vsre.train.checkpoints import trained
from vsre.train.data import PackedQuestions
from vsre.train.logs import read_log
from vsre.train.packing import IGNORE
from vsre.train.parts import freeze_parts, parts_of
from vsre.train.store import open_store
from vsre.train.trainer import VsreTrainer
from vsre.train.vlm import build_trainer, run_vlm_stages
from vsre.train.vlm_data import TextEncoder, VlmCollator, decode, with_answers

QUIET = Console(file=io.StringIO())
SELDOM = ("llava-next", "gemma3", "llama3.2-vision")
FAMILIES: dict[str, Callable[[Path], Any]] = {
    "idefics3": tiny_idefics3,
    "llava-next": tiny_llava_next,
    "gemma3": tiny_gemma3,
    "llama3.2-vision": tiny_mllama,
    "qwen2.5-vl": partial(tiny_qwen_vl, version="2.5"),
    "blip2-t5": partial(tiny_blip2, language="t5"),
    "kosmos2": tiny_kosmos2,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def opened(build: Callable[[Path], Any], folder: Path) -> tuple[Any, Any]:
    made = build(folder)
    path, processor = made if isinstance(made, tuple) else (made, AutoProcessor.from_pretrained(made))
    return AutoModelForImageTextToText.from_pretrained(path), processor


def stage(world: dict[str, Path], **more: Any) -> dict[str, Any]:
    usual = {
        "name": "tune",
        "train": ["adapters", "llm"],
        "data": [world],
        "lr": 3e-3,
        "batch_images": 8,
        "max_steps": 12,
    }
    return usual | more


def run(model: Any, processor: Any, world: dict[str, Path], out: Path, **more: Any) -> dict[str, Any]:
    figures: dict[str, Any] = run_vlm_stages(model, processor, [stage(world, **more)], out, seed=3, console=QUIET)
    return figures


@pytest.mark.parametrize(
    "name",
    # Qwen's processor cannot be saved without torchvision.
    [pytest.param(n, marks=pytest.mark.slow if n in SELDOM else ()) for n in FAMILIES if "qwen" not in n],
)
def test_a_family_learns_and_is_diagnosed(name: str, world: dict[str, Path], tmp_path: Path) -> None:
    model, processor = opened(FAMILIES[name], tmp_path / "model")
    eyes = parts_of(model).eyes
    before = {n: p.detach().clone() for n, p in eyes.named_parameters()}
    figures = run(model, processor, world, tmp_path / "run")
    first, last = (figures["stages"][0][k] for k in ("first_loss", "last_loss"))
    assert last < (0.97 if "t5" in name else 0.7) * first  # T5's tiny weights begin far away
    assert figures["stages"][0]["config"]["questions_per_image"] == 1, "as it was asked, whatever packs take"
    assert all(before[n].equal(p) for n, p in eyes.named_parameters()), "what is frozen stays as it was"
    saved = AutoModelForImageTextToText.from_pretrained(figures["model"])
    assert all(p.equal(dict(model.named_parameters())[n]) for n, p in saved.named_parameters())
    picture = next(iter(VlmCollator(data_of(world, tmp_path), processor, model).data.stores)).image(0)
    replies = TransformersEngine(figures["model"]).answer(
        [(picture, [Prompt("Is the cat left of the dog?", ("Yes", "No"))])]
    )
    assert replies[0][0].error is None and len(replies[0][0].scores) == 2


def data_of(world: dict[str, Path], folder: Path) -> Any:
    return PackedQuestions([open_store(DataSource(**world), TextEncoder(), folder / "store")])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_is_diagnosis_and_the_answer_is_learnt(name: str, world: dict[str, Path], tmp_path: Path) -> None:
    model, processor = opened(FAMILIES[name], tmp_path / "model")
    data = data_of(world, tmp_path)
    collator = VlmCollator(data, processor, model)
    items = [data[np.array([row])] for row in (0, 3, 7)]
    batch = collator(items)
    for i, (rows, examples) in enumerate(items):
        prompt, answer = decode(examples[0])
        alone = collator.renderer.whole([collator._picture(int(rows[0]))], collator.renderer.render([prompt]))
        asked = batch["input_ids"][i][batch["attention_mask"][i].bool()]
        labels = batch["labels"][i][batch["labels"][i] != IGNORE]
        if not collator.renderer.encoder_decoder:
            assert asked[-len(labels) :].equal(labels), "what is learnt stands behind the prompt"
            asked = asked[: -len(labels)]
        assert asked.equal(alone["input_ids"][0])
        assert processor.tokenizer.decode(labels[:-1]).strip() == answer
        assert labels[-1] == processor.tokenizer.eos_token_id


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_the_models_own_and_padding_has_no_part(name: str, world: dict[str, Path], tmp_path: Path) -> None:
    model, processor = opened(FAMILIES[name], tmp_path / "model")
    trainer = build_trainer(model, processor, Stage.model_validate(stage(world)), tmp_path / "run" / "01", 0, [])
    data = trainer.train_dataset
    items = [data[np.array([row])] for row in (0, 3, 7, 9)]
    model.eval()

    def loss(chosen: Any, count: int) -> float:
        batch = trainer.data_collator(chosen)
        del batch["rows"], batch["tokens"]
        with torch.no_grad():
            return float(trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(count)))

    batch = trainer.data_collator(items[:1])
    del batch["rows"], batch["tokens"]
    learnt = int((batch["labels"] != IGNORE).sum())
    with torch.no_grad():
        assert loss(items[:1], learnt) == pytest.approx(float(model(**batch).loss), rel=1e-4)
    assert loss(items, 1) == pytest.approx(sum(loss([item], 1) for item in items), rel=1e-4)


def test_an_answer_that_the_prompt_sees_is_refused(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = opened(tiny_paligemma, tmp_path / "model")
    figures = run(model, processor, world, tmp_path / "run", max_steps=2)
    assert figures["stages"][0]["unseen"] < 1e-4, "answers have the type of a suffix"
    monkeypatch.setattr("vsre.train.vlm_trainer.SUFFIX", 0)
    with pytest.raises(VsreError, match="sees the answer before"):
        run(model, processor, world, tmp_path / "other", max_steps=2)


def test_a_second_text_is_not_told_the_answer() -> None:
    ids = torch.tensor([[5, 6, 7], [5, 8, 0]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "qformer_input_ids": ids.clone(),
        "qformer_attention_mask": torch.ones(2, 3, dtype=torch.long),
        "cross_attention_mask": torch.arange(6).view(2, 3, 1),
        "pixel_values": torch.zeros(2, 3, 4),
    }
    made = with_answers(inputs, [[1, 2], [3]], 0)
    assert made["input_ids"].tolist() == [[5, 6, 7, 1, 2], [5, 8, 3, 0, 0]]
    assert made["labels"].tolist() == [[IGNORE] * 3 + [1, 2], [IGNORE] * 2 + [3] + [IGNORE] * 2]
    assert made["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert made["cross_attention_mask"][..., 0].tolist() == [[0, 1, 2, 2, 2], [3, 4, 4, 4, 4]]
    assert made["qformer_input_ids"].equal(ids) and made["qformer_attention_mask"].shape == (2, 3)
    assert made["pixel_values"].shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("build", "train"),
    [(tiny_idefics3, ["adapters", "llm"]), (tiny_kosmos2, ["adapters"])],  # the layers of Kosmos-2 drop out
)
def test_checkpointing_changes_nothing(
    build: Callable[[Path], Any], train: list[str], world: dict[str, Path], tmp_path: Path
) -> None:
    losses = []
    for way in (False, True):
        model, processor = opened(build, tmp_path / f"model-{way}")
        more = {"train": train, "max_steps": 2, "gradient_checkpointing": way}
        figures = run(model, processor, world, tmp_path / f"run-{way}", **more)
        losses.append(figures["stages"][0]["last_loss"])
        assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_low_rank_layers_are_all_that_trains_and_are_merged(world: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, processor = opened(tiny_gemma3, tmp_path / "model")
    names = {n for n, _ in model.named_parameters()}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    figures = run(model, processor, world, tmp_path / "run", train=["llm"], lora={"rank": 4, "alpha": 8}, lr=1e-2)
    assert {n for n, _ in model.named_parameters()} == names, "the layers are gone"
    changed = {n for n, p in model.named_parameters() if not before[n].equal(p)}
    assert changed and all("language_model.layers" in n and n.endswith("proj.weight") for n in changed)
    assert figures["stages"][0]["last_loss"] < figures["stages"][0]["first_loss"]


def test_adapters_have_their_own_rate(world: dict[str, Path], tmp_path: Path) -> None:
    model, processor = opened(tiny_gemma3, tmp_path / "model")
    chosen = Stage.model_validate(stage(world, adapters_lr=1e-4))
    asleep = freeze_parts(model, chosen)
    trainer = build_trainer(model, processor, chosen, tmp_path / "run" / "01", 0, asleep)
    optimizer = trainer.create_optimizer()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    adapters = {id(p) for p in parts_of(model).groups["adapters"]}
    assert set(rates) == {id(p) for p in trained(model).values()}
    assert {at: rate == 1e-4 for at, rate in rates.items()} == {at: at in adapters for at in rates}


@pytest.mark.parametrize("build", [tiny_blip2, tiny_instructblip])
def test_a_step_counts_all_that_an_encoder_decoder_learns(
    build: Callable[..., Any], world: dict[str, Path], tmp_path: Path
) -> None:
    """InstructBLIP tells of its T5 inside alone: half of a two-token answer would be left out of the divisor."""
    model, processor = opened(partial(build, language="t5"), tmp_path / "model")
    chosen = Stage.model_validate(stage(world))
    trainer = build_trainer(model, processor, chosen, tmp_path / "run" / "01", 0, freeze_parts(model, chosen))
    batch = trainer.data_collator([trainer.train_dataset[pack] for pack in [*trainer.sampler][:4]])
    labels = batch["labels"]
    assert bool((labels[:, 0] != IGNORE).all()), "their first token is learnt"
    _, count = trainer.get_batch_samples(iter([dict(batch)]), 1, torch.device("cpu"))
    assert int(count) == int((labels != IGNORE).sum())


def both_stages(folder: Path, world: dict[str, Path], out: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    common = {"save_every": 2, "batch_images": 4, "max_steps": 4}
    stages = [
        stage(world, name="align", train=["adapters"], micro_batch_images=2, **common),
        stage(world, lora={"rank": 2, "dropout": 0.1}, **common),
    ]
    run_vlm_stages(model, processor, stages, out, seed=1, console=QUIET)


def stop_at(call: int, stop: Callable[[], None], patch: Any) -> None:
    """Have `stop` called in a forward pass, counted from this process's first."""
    original, calls = VsreTrainer.training_step, [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            stop()
        return original(*args, **kwargs)

    patch(VsreTrainer, "training_step", counted)


def assert_same(run: Path, whole: Path) -> None:
    for name in ("01-align", "02-tune"):
        ours, theirs = (load_file(f / name / "model" / "model.safetensors") for f in (run, whole))
        assert ours.keys() == theirs.keys() and all(ours[n].equal(theirs[n]) for n in ours)
        logs = [[(x["step"], x["loss"]) for x in read_log(f / name / "log.jsonl")] for f in (run, whole)]
        assert logs[0] == logs[1]


# The first stage has two passes a step and saves after four: in its third step, then in the second stage's fourth.
MOMENTS = (6, 4 + 4)


def test_stopped_and_resumed_as_if_undisturbed(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    folder = tiny_llava(tmp_path)
    both_stages(folder, world, tmp_path / "whole")

    def stop() -> None:
        raise KeyboardInterrupt

    for moment in MOMENTS:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            stop_at(moment, stop, patched.setattr)
            both_stages(folder, world, tmp_path / "run")
    both_stages(folder, world, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_what_a_run_has_written_is_not_needed_again(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two checkpoints, a third beside them and the weights all but the third are there."""
    model, processor = opened(tiny_llava, tmp_path)
    few = {"max_steps": 4, "save_every": 2}
    run(model, processor, world, tmp_path / "run", **few)
    done = tmp_path / "run" / "01-tune" / "done.json"
    done.unlink()
    free = 3 * sum(p.nbytes for p in trained(model).values()) + 1000
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr("vsre.train.checkpoints.shutil.disk_usage", lambda _: usage)
    with pytest.raises(VsreError, match="the run needs about"):
        run(*opened(tiny_llava, tmp_path), world, tmp_path / "other", **few)
    run(*opened(tiny_llava, tmp_path), world, tmp_path / "run", **few)
    assert done.is_file()


def share(folder: Path, world: dict[str, Path], out: Path, moment: int, rank: int, of: int, port: int) -> None:
    """One of `of` processes that gloo connects; it kills itself in a forward pass."""
    if of > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(of), "ACCELERATE_USE_CPU": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    stop_at(moment, lambda: os.kill(os.getpid(), signal.SIGKILL), setattr)
    both_stages(folder, world, out)


def together(of: int, folder: Path, world: dict[str, Path], out: Path, moment: int = 0) -> list[int | None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shares = [PROCESSES.Process(target=share, args=(folder, world, out, moment, n, of, port)) for n in range(of)]
    for one in shares:
        one.start()
    for one in shares:
        one.join()
    return [one.exitcode for one in shares]


@pytest.mark.slow
def test_killed_and_resumed_as_if_undisturbed(world: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = tiny_llava(tmp_path)
    assert together(1, folder, world, tmp_path / "whole") == [0]
    ends = [together(1, folder, world, tmp_path / "run", moment) for moment in MOMENTS]
    assert ends == [[-signal.SIGKILL]] * 2
    assert together(1, folder, world, tmp_path / "run") == [0]
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(world: dict[str, Path], tmp_path: Path) -> None:
    """The second stage's dropout is drawn by each process for itself, so the first is compared."""
    pytest.importorskip("peft")
    folder = tiny_llava(tmp_path)
    logs = {}
    for of in (1, 2):
        assert together(of, folder, world, tmp_path / f"{of}") == [0] * of
        logs[of] = [line["loss"] for line in read_log(tmp_path / f"{of}" / "01-align" / "log.jsonl")]
        assert (tmp_path / f"{of}" / "02-tune" / "done.json").is_file()
    assert len(logs[1]) == 4 and logs[2] == pytest.approx(logs[1], rel=1e-5)


def test_a_filler_teaches_nothing(world: dict[str, Path], tmp_path: Path) -> None:
    model, processor = opened(tiny_llava, tmp_path)
    trainer = build_trainer(model, processor, Stage.model_validate(stage(world)), tmp_path / "run" / "01", 0, [])
    data = trainer.train_dataset
    row = np.array([3])
    batch = trainer.data_collator([data[row], data[~row]])
    assert batch["rows"] == [3, 3] and (batch["labels"] != IGNORE).any(1).tolist() == [True, False]
    only = trainer.data_collator([data[~row]])
    del only["rows"], only["tokens"]
    model.train()
    loss = trainer.compute_loss(model, only, num_items_in_batch=torch.tensor(1))
    loss.backward()
    assert float(loss.detach()) == 0 and all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_what_cannot_be_trained_says_why(world: dict[str, Path], tmp_path: Path) -> None:
    model, processor = opened(tiny_llava, tmp_path)
    with pytest.raises(VsreError, match="one question per sequence"):
        run(model, processor, world, tmp_path / "a", questions_per_image=4)
    ours, its = opened(partial(tiny_vsre, encoders=("clip",)), tmp_path)
    with pytest.raises(VsreError, match="trains as a `checkpoint`"):
        run(ours, its, world, tmp_path / "b")
    with pytest.raises(VsreError, match="its answer is empty"):
        TextEncoder().encode(["q"], ["Is it?"], [" "])
    qwen, qwens = opened(FAMILIES["qwen2.5-vl"], tmp_path / "qwen")
    with pytest.raises(VsreError, match="lies in its encoder"):
        run(qwen, qwens, world, tmp_path / "c", train=["adapters"])


def test_a_picture_that_cannot_be_read_is_named(world: dict[str, Path], tmp_path: Path) -> None:
    model, processor = opened(tiny_llava, tmp_path)
    data = data_of(world, tmp_path)
    collator = VlmCollator(data, processor, model)
    data.image = lambda _: b"no picture"  # type: ignore[method-assign]
    with pytest.raises(VsreError, match=r"the image of question .*/w0"):
        collator([data[np.array([0])]])
