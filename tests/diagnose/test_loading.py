"""Loading options: devices, parts on the disk, quantisation, code of a checkpoint's own, and what is missing."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.dynamic_module_utils
from diagnose_data import picture
from transformers import AutoModelForImageTextToText, AutoProcessor

import vsre.diagnose.devices as devices
import vsre.diagnose.loading as loading
from tiny_families_native import tiny_pixtral
from tiny_families_qwen import tiny_qwen_vl
from vsre.diagnose import Decoding, Prompt, Reply, TransformersEngine
from vsre.diagnose.devices import choose_device, memory_limits, quantized
from vsre.diagnose.loading import load_model, weights_fingerprint
from vsre.errors import VsreError

DECODING = Decoding(short_tokens=4, full_tokens=6)
ASKED = [
    (picture(i, size=(64 + 30 * i, 48)), [Prompt("Is the cat left of the dog?", ("Yes", "No")), Prompt("Is it?")])
    for i in range(2)
]
CPU = torch.device("cpu")


def same(replies: list[list[Reply]], others: list[list[Reply]]) -> bool:
    """Where weights lie in memory changes the last digit."""
    flat, other = ([(r.error, r.text, *r.scores) for row in rows for r in row] for rows in (replies, others))
    plain = [[(*one[:2], *(pytest.approx(s.logp, rel=1e-5) for s in one[2:])) for one in flat]]
    return plain == [[(*one[:2], *(s.logp for s in one[2:])) for one in other]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "Unknown device 'abacus'"),
        ({"device": "cuda:97"}, r"no device cuda:97 here. There are: cpu"),
        ({"dtype": "int3"}, "Unknown dtype 'int3'"),
        ({"device": "cpu", "quantization": "2bit"}, "Unknown quantization '2bit'"),
        ({"device": "cpu", "quantization": "4bit"}, "4bit weights need a GPU"),
        ({"device_map": {"": "cpu"}, "quantization": "8bit"}, "8bit weights need a GPU"),
        ({"device": "cpu", "device_map": "auto"}, "contradict"),
        ({"device_map": "somehow"}, "Unknown device map 'somehow'"),
        ({"device_map": {"model": "cuda:98", "lm_head": "cpu"}}, "no device cuda:98"),
        ({"revision": "main"}, "a folder has no revisions"),
        ({"attn_implementation": "someone/attention"}, "attention from the hub is code"),
        ({"attn_implementation": "telepathy"}, "telepathy"),
    ],
)
def test_options_that_cannot_be_met(llava: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(VsreError, match=message):
        load_model(llava, **options)


def test_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(VsreError, match="pip install bitsandbytes"):
        quantized("4bit", gpu, "auto")
    monkeypatch.setattr(devices, "find_spec", lambda name: name)
    settings, dtype = quantized("4bit", gpu, "bfloat16")
    assert (settings.load_in_4bit, settings.bnb_4bit_quant_type, dtype) == (True, "nf4", "bfloat16")
    assert settings.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantized("8bit", gpu, "float16")[0].load_in_8bit
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert quantized("4bit", gpu, "auto")[1] == "float16"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("auto", {"a": "disk", "b": 1, "c": "cpu"}) == torch.device("cuda:1")
    assert choose_device("auto", {"a": "disk", "c": "cpu"}) == CPU
    assert choose_device("auto", "balanced") == torch.device("cuda")
    assert memory_limits({"0": "20GiB", "cpu": "60GiB"}) == {0: "20GiB", "cpu": "60GiB"}


def test_parts_may_lie_anywhere(folder: Path) -> None:
    """Weights on the disk, one part or another, give the same fingerprint and the same answers."""
    whole = TransformersEngine(folder, decoding=DECODING)
    expected = whole.answer(ASKED)
    assert len({reply.text for row in expected for reply in row}) > 1
    assert whole.notes()["devices"] == ["cpu"]
    parts = {name: "disk" for name, _ in whole.model.named_children()}
    maps: list[dict[str, str]] = [{"": "disk"}, {**parts, "lm_head": "cpu"}]
    if "encoders" in parts:  # SigLIP's pooling layer reads weights past the hooks that would fetch them
        maps = [{**parts, "encoders": "cpu"}, {**parts, "encoders": "cpu", "adapters": "cpu"}]
    size = sum(t.numel() * t.element_size() for t in whole.model.state_dict().values())
    for places in ({"device_map": maps[0]}, {"device_map": maps[1]}, {"max_memory": {"cpu": int(0.9 * size)}}):
        engine = TransformersEngine(folder, decoding=DECODING, **places)
        assert engine.settings() == whole.settings()
        assert any(weight.is_meta for weight in engine.model.state_dict().values())
        assert same(engine.answer(ASKED), expected), places
        assert engine.notes()["way"] == "shared prefix" and engine.device == CPU, engine.notes()
        assert "disk" in engine.notes()["devices"]


def test_fingerprint_of_other_dtypes_and_of_shards(llava: Path, tmp_path: Path) -> None:
    whole = load_model(llava)
    whole.model.save_pretrained(tmp_path, max_shard_size="60KB")
    whole.processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert weights_fingerprint(load_model(tmp_path).model) == weights_fingerprint(whole.model)
    half = load_model(tmp_path, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert weights_fingerprint(half.model) != weights_fingerprint(whole.model)
    on_disk = load_model(tmp_path, dtype="bfloat16", device_map={"": "disk"})
    assert weights_fingerprint(on_disk.model) == weights_fingerprint(half.model)
    # Quantised weights are integers with their scales beside them.
    packed = torch.nn.Module()
    packed.weight = torch.nn.Parameter(torch.arange(8, dtype=torch.uint8), requires_grad=False)
    packed.register_buffer("scale", torch.ones(2))
    before = weights_fingerprint(packed)
    packed.scale[1] = 2.0
    assert weights_fingerprint(packed) != before


def test_attention_as_asked_for(llava: Path) -> None:
    engines = [TransformersEngine(llava, decoding=DECODING, attn_implementation=kind) for kind in ("eager", "sdpa")]
    assert [engine.model.config._attn_implementation for engine in engines] == ["eager", "sdpa"]
    assert engines[0].settings() != engines[1].settings()
    one, other = (engine.answer(ASKED) for engine in engines)
    assert [[reply.text for reply in row] for row in one] == [[reply.text for reply in row] for row in other]


def test_weights_that_are_not_there(llava: Path, tmp_path: Path) -> None:
    """transformers would make them up."""
    model = AutoModelForImageTextToText.from_pretrained(llava)
    state = {name: t for name, t in model.state_dict().items() if "lm_head" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    AutoProcessor.from_pretrained(llava).save_pretrained(tmp_path)
    with pytest.raises(VsreError, match=r"lacks 1 of the model's weights \(lm_head.weight\)"):
        load_model(tmp_path)


def test_weights_of_another_shape(llava: Path, tmp_path: Path) -> None:
    """transformers would tell of them in a table that nobody sees."""
    shutil.copytree(llava, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["intermediate_size"] = 48
    file.write_text(json.dumps(config))
    with pytest.raises(VsreError, match=r"down_proj.weight has the shape \(32, 64\) in the checkpoint, \(32, 48\) by"):
        load_model(tmp_path / "model")


OWN = """
from transformers import LlavaConfig, LlavaForConditionalGeneration

class OwnConfig(LlavaConfig):
    model_type = "own-llava"

class OwnForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = OwnConfig
"""


def test_code_of_a_checkpoint_is_run_only_on_request(
    llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "own.py").write_text(OWN)
    spec = importlib.util.spec_from_file_location("own", tmp_path / "own.py")
    assert spec and spec.loader
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    plain = load_model(llava)
    model = own.OwnForConditionalGeneration(own.OwnConfig(**plain.model.config.to_dict() | {"model_type": "own-llava"}))
    model.load_state_dict(plain.model.state_dict())
    folder = tmp_path / "own"
    model.save_pretrained(folder)
    plain.processor.save_pretrained(folder)
    shutil.copy(tmp_path / "own.py", folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForImageTextToText": "own.OwnForConditionalGeneration",
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(VsreError, match="code from a checkpoint is run only if you allow it"):
        load_model(folder)
    assert type(load_model(folder, trust_remote_code=True).model).__name__ == "OwnForConditionalGeneration"
    (weights,) = folder.glob("*.safetensors")
    weights.unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(VsreError, match="no safetensors weights"):
        load_model(folder, trust_remote_code=True)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, llava: Path) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    message = "\nQwen2VLVideoProcessor requires the Torchvision library but it was not found in your environment."

    def fails(*_: Any, **__: Any) -> None:
        raise ImportError(message)

    monkeypatch.setattr(AutoProcessor, "from_pretrained", fails)
    with pytest.raises(VsreError, match=r"needs torchvision.*Qwen2VLVideoProcessor.*torchvision==0\.28\.\*") as caught:
        load_model(llava)
    assert str(llava) in str(caught.value)
    message = "Package `num2words` is required to run SmolVLM processor."
    with pytest.raises(VsreError, match=r"needs num2words.*pip install num2words"):
        load_model(llava)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed here")
@pytest.mark.parametrize(("build", "kind"), [(tiny_pixtral, "PixtralProcessor"), (None, "Qwen2_5_VLProcessor")])
def test_published_processors_that_need_torchvision(build: Any, kind: str, tmp_path: Path) -> None:
    """Their files as they stand on the hub."""
    _, processor = build(tmp_path) if build else tiny_qwen_vl(tmp_path, "2.5")
    processor.tokenizer.save_pretrained(tmp_path)
    processor.image_processor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    content = json.loads(file.read_text())
    content |= {"processor_class": kind, "image_processor_type": content["image_processor_type"].removesuffix("Pil")}
    file.write_text(json.dumps(content))
    with pytest.raises(VsreError, match=f"{tmp_path}: this model needs torchvision.*pip install"):
        load_model(tmp_path)
