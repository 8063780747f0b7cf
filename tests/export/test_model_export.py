"""An exported folder: loaded where only transformers is, with equal results; adapters merged; what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from vsre.cli import app
from vsre.diagnose.loading import load_model
from vsre.errors import VsreError
from vsre.export import export_model
from vsre.export.llava import convert_from_llava
from vsre.export.opening import open_for_export
from vsre.model import VsreForConditionalGeneration, build_vsre, spec_from_checkpoint
from vsre.model.fusion import ChannelFusion

QUESTION = "Is the cat left of the dog?"

ALONE = """
from importlib.util import find_spec
assert not any(find_spec(name) for name in ("vsre", "datasets", "pyarrow", "accelerate", "torchvision"))
import json, torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

out = sys.argv[1]
answers = {}
for folder in sys.argv[4:]:
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    picture = Image.open(sys.argv[2])
    content = [{"type": "image", "image": picture}, {"type": "text", "text": sys.argv[3]}]
    messages = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**inputs).logits
    name = folder.split("/")[-1]
    save_file({k: v.contiguous() for k, v in {**inputs, "logits": logits}.items()}, f"{out}/{name}.safetensors")
    made = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    ask = pipeline("image-text-to-text", model=folder, trust_remote_code=True)
    piped = ask(text=messages, max_new_tokens=6, generate_kwargs={"do_sample": False}, return_full_text=False)
    answers[name] = [processor.batch_decode(made)[0], piped[0]["generated_text"]]
    model.save_pretrained(f"{out}/{name}-again")
    processor.save_pretrained(f"{out}/{name}-again")
    AutoModelForImageTextToText.from_pretrained(f"{out}/{name}-again", trust_remote_code=True)
    AutoProcessor.from_pretrained(f"{out}/{name}-again", trust_remote_code=True)
print(json.dumps(answers))
"""


def asked(model: Any, processor: Any, picture: Image.Image) -> tuple[dict[str, torch.Tensor], str]:
    """Inputs and logits of a question about a picture, and the greedy answer with its prompt."""
    messages = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        found = {**inputs, "logits": model(**inputs).logits}
        return found, processor.batch_decode(model.generate(**inputs, max_new_tokens=6, do_sample=False))[0]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 110, 3), np.uint8)).save(path)
    return path


@pytest.mark.slow
def test_loads_where_only_transformers_is(
    alone: Callable[..., str], tiny_vsre_folder: Path, tiny_llava_folder: Path, picture: Path, tmp_path: Path
) -> None:
    parts = tiny_vsre_folder.parent
    specs = [spec_from_checkpoint(path) for path in sorted((parts / "encoders").iterdir())]
    torch.manual_seed(5)
    joined, processor = build_vsre(parts / "llm", specs[:2], fusion=ChannelFusion())
    joined.save_pretrained(tmp_path / "joined-checkpoint")
    processor.save_pretrained(tmp_path / "joined-checkpoint")
    convert_from_llava(tiny_llava_folder, tmp_path / "converted-checkpoint")
    checkpoints = {"whole": tiny_vsre_folder, "plain": tiny_llava_folder}
    checkpoints |= {name: tmp_path / f"{name}-checkpoint" for name in ("joined", "converted")}
    for name, checkpoint in checkpoints.items():
        export_model(checkpoint, tmp_path / name)
    assert not (tmp_path / "plain" / "modeling_vsre.py").exists()  # LLaVA needs no code of ours
    (tmp_path / "out").mkdir()
    answers = json.loads(alone(ALONE, tmp_path / "out", picture, QUESTION, *(tmp_path / name for name in checkpoints)))
    for name, checkpoint in checkpoints.items():
        model = AutoModelForImageTextToText.from_pretrained(checkpoint)
        wanted, text = asked(model, AutoProcessor.from_pretrained(checkpoint), Image.open(picture))
        found = load_file(tmp_path / "out" / f"{name}.safetensors")
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert torch.equal(found[key], value), f"{name}: {key}"
        assert answers[name][0] == text and text.endswith(answers[name][1])


def test_loads_here_without_trust(tiny_vsre_folder: Path, picture: Path, tmp_path: Path) -> None:
    """Where vsre is installed its own classes are taken, and no code from the folder runs."""
    out = tmp_path / "out"
    export_model(tiny_vsre_folder, out)
    (out / "modeling_vsre.py").write_text("raise SystemExit('this code was run')")
    loaded = load_model(out, device="cpu")
    assert isinstance(loaded.model, VsreForConditionalGeneration)
    wanted, _ = asked(
        AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder), loaded.processor, Image.open(picture)
    )
    assert torch.equal(asked(loaded.model, loaded.processor, Image.open(picture))[0]["logits"], wanted["logits"])


def test_no_path_of_this_machine_goes_along(tiny_vsre_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = export_model(tiny_vsre_folder, out, data=[str(tmp_path / "somewhere" / "private" / "words")])
    for file in out.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes() and b"/private/" not in file.read_bytes(), file.name
        assert str(tiny_vsre_folder.parent).encode() not in file.read_bytes(), file.name
    config = json.loads((out / "config.json").read_text())
    assert [entry["spec"]["checkpoint"] for entry in config["encoders"]] == ["clip", "siglip", "dinov2", "sam"]
    assert json.loads((out / "export.json").read_text()) == record


def test_replaces_an_export_and_nothing_else(tiny_llava_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_model(tiny_llava_folder, out)
    (out / "model-00001-of-00002.safetensors").touch()
    export_model(tiny_llava_folder, out, dtype="bfloat16")
    assert not (out / "model-00001-of-00002.safetensors").exists() and not (tmp_path / "out.part").exists()
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    for taken in (tiny_llava_folder, tmp_path):
        with pytest.raises(VsreError, match="something other than an export"):
            export_model(tiny_llava_folder, taken)
    with pytest.raises(VsreError, match=r"no metrics\.json here"):
        export_model(tiny_llava_folder, tmp_path / "new", results=[tmp_path])
    assert not (tmp_path / "new").exists()


def test_keeps_the_checkpoints_own_dtype(tiny_llava_folder: Path, tmp_path: Path) -> None:
    half = AutoModelForImageTextToText.from_pretrained(tiny_llava_folder, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    AutoProcessor.from_pretrained(tiny_llava_folder).save_pretrained(tmp_path / "half")
    assert export_model(tmp_path / "half", tmp_path / "out")["dtype"] == "bfloat16"


def test_adapters_are_merged(tiny_vsre_folder: Path, picture: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    base = AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder)
    lora = peft.LoraConfig(
        target_modules=r"language_model\..*(q_proj|v_proj)", modules_to_save=["adapters.clip"], init_lora_weights=False
    )
    tuned = peft.get_peft_model(base, lora)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name:
                parameter += 0.05
    adapter, image = tmp_path / "adapter", Image.open(picture)
    tuned.save_pretrained(adapter)
    processor = AutoProcessor.from_pretrained(tiny_vsre_folder)
    wanted, _ = asked(tuned.eval(), processor, image)
    plain, _ = asked(AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder), processor, image)
    assert not torch.allclose(wanted["logits"], plain["logits"], atol=1e-3)
    export_model(adapter, tmp_path / "out")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert type(merged) is VsreForConditionalGeneration
    found, _ = asked(merged, AutoProcessor.from_pretrained(tmp_path / "out"), image)
    torch.testing.assert_close(found["logits"], wanted["logits"], atol=1e-5, rtol=1e-4)

    with pytest.raises(VsreError, match="only for a PEFT adapter"):
        open_for_export(tiny_vsre_folder, base=tiny_vsre_folder)
    parts = tiny_vsre_folder.parent
    other, own = build_vsre(parts / "llm", [spec_from_checkpoint(parts / "encoders" / "sam")])
    other.save_pretrained(tmp_path / "other")
    own.save_pretrained(tmp_path / "other")
    with pytest.raises(VsreError, match=r"does not fit .*other"):
        open_for_export(adapter, base=tmp_path / "other")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(VsreError, match="Only safetensors are read"):
        open_for_export(adapter)


def test_the_verbs(tiny_llava_folder: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return result.output

    figures = tmp_path / "figures.json"
    run("export", tiny_llava_folder, tmp_path / "out", "--name", "mine", "--licence", "mit", "--json", figures)
    assert json.loads(figures.read_text())["name"] == "mine"
    assert "# mine\n" in (tmp_path / "out" / "README.md").read_text()
    assert "largest difference" in run("convert", "from-llava", tiny_llava_folder, tmp_path / "vsre").replace("_", " ")
    run("convert", "to-llava", tmp_path / "vsre", tmp_path / "llava")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava").state_dict()
    first = AutoModelForImageTextToText.from_pretrained(tiny_llava_folder).state_dict()
    assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)
