"""A language model as one GGUF file: as `build_vsre(llm="model.gguf")` reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM
from transformers.trainer_utils import validate_quantization_for_training

from vsre.errors import VsreError
from vsre.model import build_vsre, plan_checkpoints
from vsre.model.build import load_language_model
from vsre.model.checkpoints import load_config, locate
from vsre.recipes.start import encoder_specs

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed (pip install 'vsre[gguf]')")

HEADS, WIDTH, LAYERS = 2, 32, 2


def byte_letters() -> list[str]:
    """GPT-2's 256 printable letters for bytes, which a byte-level tokenizer in GGUF is made of."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    letter = {b: chr(b) for b in shown} | {b: chr(256 + n) for n, b in enumerate(hidden)}
    return [letter[b] for b in range(256)]


def paired(weight: torch.Tensor) -> torch.Tensor:
    """Rows of a query or key matrix in GGUF's order: the two halves of a head interleaved."""
    return weight.reshape(HEADS, 2, weight.shape[0] // HEADS // 2, -1).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    """A tiny random Llama, and the GGUF file of its weights in float32."""
    torch.manual_seed(0)
    tokens = [*byte_letters(), "<|end|>", "<pad>", "He", "ll"]
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * 2)
    writer.add_token_merges(["H e", "l l"])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(256)
    writer.add_pad_token_id(257)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for key, value in model.state_dict().items():
        stem = key.removesuffix(".weight")
        if stem in whole:
            name = whole[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            name = f"blk.{layer}.{names[part]}"
            if part.endswith(("q_proj", "k_proj")):
                value = paired(value)
        writer.add_tensor(f"{name}.weight", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, model


def test_its_logits_are_those_of_the_model_it_was_written_from(llama: tuple[Path, LlamaForCausalLM]) -> None:
    path, original = llama
    model, tokenizer = load_language_model(path, torch.float32)
    ids = tokenizer("Hello", return_tensors="pt").input_ids
    assert tokenizer.eos_token == "<|end|>"
    assert ids.shape[1] == 3  # He ll o
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits)


def test_vsre_is_built_on_it(llama: tuple[Path, LlamaForCausalLM], tmp_path: Path) -> None:
    path, _ = llama
    specs = encoder_specs(["zoo:clip", "zoo:sam"])
    assert plan_checkpoints(str(path), specs).hidden_size == WIDTH
    model, processor = build_vsre(str(path), specs)
    model.save_pretrained(tmp_path / "built")
    processor.save_pretrained(tmp_path / "built")
    assert (tmp_path / "built" / "model.safetensors").is_file()
    assert str(path.parent) not in (tmp_path / "built" / "config.json").read_text()
    # Not taken for a quantised model, which the Trainer refuses, neither as built nor loaded again.
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "built")
    for net in (model, again):
        for part in (net, net.language_model):
            assert not getattr(part, "is_quantized", False) and not hasattr(part.config, "quantization_config")
        validate_quantization_for_training(net)


def test_where_a_gguf_file_is_looked_for(tmp_path: Path) -> None:
    assert locate("owner/name/model.gguf") == ("owner/name", {"gguf_file": "model.gguf"})
    for missing in (tmp_path / "none.gguf", "none.gguf", "./a/none.gguf"):
        with pytest.raises(VsreError, match=r"no such file"):
            locate(missing)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\x00" * 20)
    with pytest.raises(VsreError, match=r"broken\.gguf.*cannot be read"):
        load_config(path)


def test_without_the_package_the_extra_is_named(
    llama: tuple[Path, LlamaForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsre.model.checkpoints.is_gguf_available", lambda: False)
    with pytest.raises(VsreError, match=r"vsre\[gguf\]"):
        locate(llama[0])
