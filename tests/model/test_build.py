"""Building: the plan before the weights, checkpoints of every kind, module groups."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForImageTextToText,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
)

import vsre.model.build as build
from tiny_models import tiny_encoders, tiny_llm, tiny_text_config, tiny_tokenizer, tiny_vision_configs
from vsre.errors import VsreError
from vsre.model import (
    ENCODERS,
    build_vsre,
    count_parameters,
    module_groups,
    plan,
    plan_checkpoints,
    resolve_checkpoint,
    spec_from_checkpoint,
)
from vsre.model.reference import LLAMA_2_7B


def test_plan_of_the_paper() -> None:
    made = plan(LLAMA_2_7B, list(ENCODERS.values()))
    assert (made.tokens, made.frame_size, made.text_room) == (1817, 1024, 4096 - 1817)
    rows = {row.encoder: row for row in made.rows}
    assert [rows[n].grid for n in ENCODERS] == ["24x24", "27x27", "16x16", "64x64"]
    width = 4096
    assert rows["clip"].adapter_parameters == 1024 * width + 2 * width * width + 3 * width
    sam = 256 * 512 * 9 + 512 + 512 * 1024 * 9 + 1024 + 1024 * width + width
    assert rows["sam"].adapter_parameters == sam


def test_token_budget_is_checked_before_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = LlamaConfig(hidden_size=32, max_position_embeddings=2048)
    with pytest.raises(VsreError, match=r"1817 visual tokens \(clip 576, .*leave 231 of .* 2048"):
        plan(short, list(ENCODERS.values()))
    with pytest.raises(VsreError, match="No encoders"):
        plan(short, [])
    llm, encoders = tiny_llm(tmp_path / "llm"), tiny_encoders(tmp_path / "encoders")
    specs = [spec_from_checkpoint(path) for path in encoders.values()]

    def refuse(*args: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(build, "load_encoder", refuse)
    monkeypatch.setattr(build, "load_language_model", refuse)
    with pytest.raises(VsreError, match="144 visual tokens"):
        build_vsre(llm, specs, room_for_text=1000)
    with pytest.raises(VsreError, match=r"patch_size is 8, but the checkpoint .* has 16"):
        build_vsre(llm, [dataclasses.replace(specs[0], patch_size=8)])
    bert = tmp_path / "bert"
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)).save_pretrained(bert)
    with pytest.raises(VsreError, match="no vision encoder of a known kind"):
        spec_from_checkpoint(bert)


def test_dinov2_may_read_a_smaller_input(tmp_path: Path) -> None:
    """Its position embeddings are interpolated, as at 224 of the real checkpoint's 518 pixels."""
    llm, encoders = tiny_llm(tmp_path / "llm"), tiny_encoders(tmp_path / "encoders")
    spec = dataclasses.replace(spec_from_checkpoint(encoders["dinov2"]), image_size=64)
    model, processor = build_vsre(llm, [spec], keep_cls=True)
    assert processor.num_image_tokens == 17
    assert model.get_image_features(torch.rand(1, 3, 64, 64)).shape == (1, 17, 32)


def test_weights_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    llm, encoders = tiny_llm(tmp_path / "llm"), tiny_encoders(tmp_path / "encoders")
    specs = [spec_from_checkpoint(path) for path in encoders.values()]
    torch.manual_seed(0)
    model, _ = build_vsre(llm, specs)
    torch.manual_seed(0)
    again, _ = build_vsre(llm, specs)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not any(p.is_meta for p in (*model.parameters(), *model.buffers()))
    source = LlamaForCausalLM.from_pretrained(llm).state_dict()
    got = model.language_model.state_dict()
    assert all(torch.equal(source[name], got[name]) for name in source)
    for spec in specs:
        loaded = build.load_encoder(spec, torch.float32).state_dict()
        got = model.encoders[spec.name].state_dict()
        assert all(torch.equal(loaded[name], got[name]) for name in loaded)


@pytest.mark.parametrize("tied", [False, True])
def test_language_models_without_the_image_token(tied: bool, tmp_path: Path) -> None:
    """Another architecture, grown by <image> and <pad>, tied or not, saved and loaded again."""
    tokenizer = tiny_tokenizer()
    core = tokenizer.backend_tokenizer.to_str().replace("<image>", "<old1>").replace("<pad>", "<old2>")
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(core), eos_token="</s>")
    config = GPT2Config(vocab_size=len(bare), n_embd=32, n_layer=2, n_head=2, n_positions=512, tie_word_embeddings=tied)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    bare.save_pretrained(tmp_path / "gpt2")
    clip = spec_from_checkpoint(tiny_encoders(tmp_path / "encoders")["clip"])
    model, processor = build_vsre(tmp_path / "gpt2", [clip])
    assert model.config.get_text_config().vocab_size == len(bare) + 2
    model.save_pretrained(tmp_path / "vsre")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "vsre")
    inputs = processor(images=torch.rand(3, 64, 96), text="<image> Yes", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
    assert again.generate(**inputs, max_new_tokens=2).shape[0] == 1
    head, embedding = again.get_output_embeddings().weight, again.get_input_embeddings().weight
    assert (head is embedding) == tied


def test_language_model_of_llava(tiny_llava_folder: Path, tmp_path: Path) -> None:
    clip = spec_from_checkpoint(tiny_encoders(tmp_path / "encoders")["clip"])
    llm = tiny_llm(tmp_path / "llm")
    llava = AutoModelForImageTextToText.from_pretrained(tiny_llava_folder)
    for model, _ in (
        build_vsre(tiny_llava_folder, [clip]),
        build_vsre(llm, [clip], llm_from=tiny_llava_folder),
    ):
        assert isinstance(model.language_model, LlamaForCausalLM)
        assert torch.equal(model.get_input_embeddings().weight, llava.get_input_embeddings().weight)
        assert torch.equal(model.get_output_embeddings().weight, llava.lm_head.weight)
        ids = torch.arange(4, 20)[None]
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, llava(input_ids=ids).logits)
    config = tiny_text_config(tiny_tokenizer())
    config.num_hidden_layers = 1
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    with pytest.raises(VsreError, match=r"num_hidden_layers 2, that of .* has 1"):
        build_vsre(tmp_path / "other", [clip], llm_from=tiny_llava_folder)


@pytest.mark.parametrize(("top", "text", "grown"), [(True, False, False), (True, False, True), (False, True, False)])
def test_a_head_is_tied_where_that_of_the_whole_model_is(top: bool, text: bool, grown: bool, tmp_path: Path) -> None:
    """Qwen2.5-VL 3B says that it is tied at the top of its config only; a Llama of the same text config is not."""
    tokenizer = tiny_tokenizer()
    if grown:  # a head that is tied grows with the embeddings
        core = tokenizer.backend_tokenizer.to_str().replace("<image>", "<old1>")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(core), eos_token="</s>", pad_token="<pad>"
        )
    config = LlavaConfig(
        vision_config=tiny_vision_configs()["clip"],
        text_config=tiny_text_config(tokenizer),
        image_token_index=3,
        tie_word_embeddings=top,
    )
    torch.manual_seed(0)
    whole = LlavaForConditionalGeneration(config)
    whole.save_pretrained(tmp_path / "llava")
    tokenizer.save_pretrained(tmp_path / "llava")
    if not top:  # written by hand: saved so, transformers says it in both places
        weights = load_file(tmp_path / "llava" / "model.safetensors")
        assert sum(name.endswith(("lm_head.weight", "embed_tokens.weight")) for name in weights) == 2
    stored = json.loads((tmp_path / "llava" / "config.json").read_text())
    stored["text_config"]["tie_word_embeddings"] = text
    (tmp_path / "llava" / "config.json").write_text(json.dumps(stored))
    read = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava")
    tied = read.lm_head.weight is read.get_input_embeddings().weight
    assert tied == top
    model, _ = build_vsre(tmp_path / "llava", [spec_from_checkpoint(tiny_encoders(tmp_path / "encoders")["clip"])])
    model.save_pretrained(tmp_path / "vsre")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "vsre")
    for made in (model, again):
        assert made.config.get_text_config().tie_word_embeddings == tied
        head, embedding = made.get_output_embeddings().weight, made.get_input_embeddings().weight
        assert (head is embedding) == tied and len(head) == len(tokenizer) + grown
        assert torch.equal(head[: len(tokenizer)], whole.lm_head.weight)
        assert torch.equal(embedding[: len(tokenizer)], whole.get_input_embeddings().weight)


def test_a_language_model_that_does_not_stand_alone_is_told(tmp_path: Path) -> None:
    Qwen2_5_VLConfig().save_pretrained(tmp_path)
    clip = spec_from_checkpoint(tiny_encoders(tmp_path / "encoders")["clip"])
    with pytest.raises(VsreError, match=r"the kind 'qwen2_5_vl_text' does not stand alone.*Take a text-only model"):
        plan_checkpoints(tmp_path, [clip])


def test_two_encoders_of_one_name_are_told_before_weights(tmp_path: Path) -> None:
    encoders = tiny_encoders(tmp_path)
    specs = [spec_from_checkpoint(encoders[name], name="model") for name in ("clip", "sam")]
    with pytest.raises(VsreError, match=r"model, model: two have the same name.*NAME=ID"):
        plan(tiny_text_config(tiny_tokenizer()), specs)
    folder = encoders["clip"].rename(tmp_path / "3d.7f")
    assert spec_from_checkpoint(folder).name == "encoder-3d-7f"


def test_language_model_of_vsre(tiny_vsre_folder: Path, tmp_path: Path) -> None:
    clip = spec_from_checkpoint(tiny_encoders(tmp_path / "encoders")["clip"])
    first = AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder)
    model, processor = build_vsre(tiny_vsre_folder, [clip])
    assert torch.equal(model.get_output_embeddings().weight, first.get_output_embeddings().weight)
    assert processor.num_image_tokens == 36


@pytest.mark.parametrize("kind", ["vsre", "llava"])
def test_module_groups_hold_every_parameter(kind: str, request: pytest.FixtureRequest) -> None:
    model = AutoModelForImageTextToText.from_pretrained(request.getfixturevalue(f"tiny_{kind}_folder"))
    grouped = [p for modules in module_groups(model).values() for m in modules for p in m.parameters()]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))
    counts = count_parameters(model)
    assert sum(all_ for all_, _ in counts.values()) == model.num_parameters()
    for module in module_groups(model)["llm"]:
        module.requires_grad_(False)
    assert count_parameters(model)["llm"][1] == 0
    with pytest.raises(VsreError, match="only VSRE and LLaVA"):
        module_groups(torch.nn.Linear(1, 1))


def test_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.model.checkpoints.ZOO", tmp_path / "zoo")
    path = tiny_encoders(tmp_path / "zoo")["clip"]
    assert resolve_checkpoint("zoo:clip") == str(path)
    assert spec_from_checkpoint("zoo:clip").name == "clip"
    assert spec_from_checkpoint("zoo:clip").checkpoint == "zoo:clip"
    with pytest.raises(VsreError, match=r"zoo:bert: no such model .* clip, dinov2, sam, siglip"):
        resolve_checkpoint("zoo:bert")
    assert resolve_checkpoint(path) == str(path)
    assert resolve_checkpoint("openai/clip-vit-large-patch14-336") == "openai/clip-vit-large-patch14-336"
    (tmp_path / "empty").mkdir()
    with pytest.raises(VsreError, match=r"no config\.json"):
        resolve_checkpoint(tmp_path / "empty")
    for missing in (tmp_path / "none", str(tmp_path / "none"), "./none", "a/b/c"):
        with pytest.raises(VsreError, match="no such checkpoint folder"):
            resolve_checkpoint(missing)
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(VsreError, match="config cannot be read"):
        spec_from_checkpoint(tmp_path / "empty")
    with pytest.raises(VsreError, match="config cannot be read"):
        spec_from_checkpoint("nobody/no-such-model")
    spec = spec_from_checkpoint(path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(VsreError, match="weights cannot be read"):
        build.load_encoder(spec, torch.float32)
    weights.unlink()
    torch.save({}, path / "pytorch_model.bin")
    with pytest.raises(VsreError, match=r"weights cannot be read .* safetensors"):
        build.load_encoder(spec, torch.float32)


def test_weights_of_another_shape_than_the_config_says(tmp_path: Path) -> None:
    path = tiny_llm(tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(VsreError) as error:
        build.load_language_model(path, torch.float32)
    said = str(error.value)
    assert str(path) in said and "layers.0.mlp.down_proj.weight has the shape (32, 64)" in said
    assert "(32, 48) by its config.json and 5 more" in said
