"""Questions without the picture, chat templates that fail, tokenizers without a word, odd answers, odd pictures."""

from __future__ import annotations

import io
import shutil
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diagnose_data import picture, strong, strong_llava, strong_vsre
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PreTrainedTokenizerFast

from tiny_families_reference import DECODING, FAMILIES, Alone, Family, load, questions
from tiny_models import SENTENCES, tiny_llava
from vsre.diagnose import Decoding, Prompt, TransformersEngine
from vsre.errors import VsreError

Way = Literal["auto", "plain"]
WAYS: tuple[Way, ...] = ("auto", "plain")
OURS = {"llava": strong_llava, "vsre": strong_vsre}
SPEAK = ["llava", "vsre", "florence2", "gemma3", "llama3.2-vision", "qwen2.5-vl", "smolvlm", "mistral3"]
MORE = ["llava-next", "llava-onevision", "idefics2", "idefics3", "internvl", "aya-vision", "cohere2-vision", "pixtral"]
MORE += ["glm-4v", "qwen2-vl", "qwen3-vl", "qwen3.5"]
DUMB = {
    "paligemma": "`images` are expected",
    "blip2-opt": "missing 1 required positional argument: 'pixel_values'",
    "instructblip-t5": "missing 1 required positional argument: 'pixel_values'",
    "kosmos2": "You have to specify pixel_values",
}


@pytest.mark.parametrize("name", [*SPEAK, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
@torch.inference_mode()
def test_without_the_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model's own generate and forward say to the text alone, in a padded batch."""
    folder = tmp_path
    if name in OURS:
        folder = OURS[name](tmp_path)
        family = Family(lambda _: folder, "", "", lead=" ")
    else:
        family = FAMILIES[name]
    alone = Alone(family, *load(family.build, folder, monkeypatch), picture=False)
    asked = [(b"no picture at all", prompts) for _, prompts in questions()[:2]]
    blind = TransformersEngine(folder, decoding=DECODING, picture="none")
    replies = list(chain(*blind.answer(asked)))
    prompts = list(chain(*(prompts for _, prompts in asked)))
    for prompt, reply in zip(prompts, replies, strict=True):
        text, logps = alone.answer(b"", prompt)
        assert reply.error is None and reply.text == text == alone.generated(b"", prompt), reply
        assert [score.logp for score in reply.scores] == pytest.approx(logps, rel=1e-3)
    assert len({reply.text for reply in replies}) > 3
    assert blind.notes()["way"] == "plain" and blind.notes()["why"] == "asked without the picture"
    assert [[r.text for r in row] for row in blind.answer([(None, prompts)])] == [[r.text for r in replies]]
    seeing = TransformersEngine(folder, decoding=DECODING)
    assert seeing.settings() | {"picture": "none", "way": "plain"} == blind.settings() != seeing.settings()


@pytest.mark.parametrize("name", DUMB)
def test_models_that_need_a_picture_say_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(FAMILIES[name].build, tmp_path, monkeypatch)
    with pytest.raises(VsreError, match="cannot be asked without a picture") as caught:
        TransformersEngine(tmp_path, picture="none")
    assert DUMB[name] in str(caught.value) and str(tmp_path) in str(caught.value)


def with_template(llava: Path, folder: Path, template: str) -> Path:
    shutil.copytree(llava, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_chat_templates_that_fail(llava: Path, tmp_path: Path) -> None:
    good = (llava / "chat_template.jinja").read_text()
    for i, (template, message) in enumerate(
        [
            ("{{ raise_exception('only two-turn chats') }}", "only two-turn chats"),
            ("{% for message in messages %}", "TemplateSyntaxError"),
            ("USER: <image> ASSISTANT:", "leaves the question out"),
        ]
    ):
        folder = with_template(llava, tmp_path / str(i), template)
        with pytest.raises(VsreError, match="chat template") as caught:
            TransformersEngine(folder)
        assert str(folder) in str(caught.value) and message in str(caught.value)
    always = with_template(llava, tmp_path / "always", good.replace("USER: ", "USER: <image>"))
    with pytest.raises(VsreError, match="cannot be asked without a picture: its chat template writes one"):
        TransformersEngine(always, picture="none")


def test_a_prompt_that_the_template_fails_on_is_an_error_alone(llava: Path, tmp_path: Path) -> None:
    picky = "{% if 'bowl' in messages[0]['content'][-1]['text'] %}{{ raise_exception('no bowls') }}{% endif %}"
    good = (llava / "chat_template.jinja").read_text()
    folder = with_template(llava, tmp_path / "picky", picky + good)
    prompts = [Prompt("Is it?"), Prompt("Is the bowl left of the cat?"), Prompt("Is the dog above the cat?")]
    asked = [(picture(0), prompts), (picture(1), prompts[1:])]
    (one, bowl, two), (again, three) = TransformersEngine(folder, decoding=DECODING).answer(asked)
    assert bowl.error == again.error and "no bowls" in (bowl.error or "")
    expected = TransformersEngine(llava, decoding=DECODING).answer(asked)
    assert [one.text, two.text, three.text] == [expected[0][0].text, expected[0][2].text, expected[1][1].text]


@pytest.fixture(scope="module")
def word_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA that knows whole words, and neither a yes nor a no."""
    folder = tmp_path_factory.mktemp("words")
    words = sorted({word.strip(".,:?") for text in SENTENCES for word in text.split()} - {"yes", "no", "Yes", "No"})
    names = ["<s>", "</s>", "<pad>", "<image>", "<unk>", *words, ".", ",", ":", "?"]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    model = strong(tiny_llava(folder))
    processor = AutoProcessor.from_pretrained(model)
    processor.tokenizer = tokenizer
    processor.save_pretrained(model)
    loaded = AutoModelForImageTextToText.from_pretrained(model)
    loaded.resize_token_embeddings(len(names))
    loaded.save_pretrained(model)
    return model


@pytest.mark.parametrize("way", WAYS)
def test_a_tokenizer_without_yes(word_level: Path, way: Way) -> None:
    text = "Is the cat left of the dog?"
    prompts = [
        Prompt(text, ("Yes", "No")),
        Prompt(text, ("True", "False")),
        Prompt(text, ("True", "No")),
        Prompt(text, ("Yes", "No"), "none"),
        Prompt("Is it?"),
    ]
    (replies,) = TransformersEngine(word_level, way=way, decoding=DECODING).answer([(picture(0), prompts)])
    assert [len(reply.scores) for reply in replies] == [0, 2, 0, 0, 0]
    assert [reply.error for reply in replies] == [None] * 5
    assert replies[0].text == replies[1].text == replies[2].text
    assert replies[0].text and replies[3].text is None
    assert replies[0].p_yes is None and replies[1].p_yes is not None


@pytest.mark.parametrize("way", WAYS)
def test_empty_answers_and_endless_ones(llava: Path, tmp_path: Path, way: Way) -> None:
    """A model that ends at once, and one that never does."""
    shutil.copytree(llava, tmp_path, dirs_exist_ok=True)
    model = AutoModelForImageTextToText.from_pretrained(llava)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is as likely as the first, <s>
    model.save_pretrained(tmp_path)
    asked = [(picture(i), [Prompt("Is it?", ("Yes", "No"), style) for style in ("short", "full")]) for i in range(2)]
    endless = TransformersEngine(tmp_path, way=way, decoding=Decoding(5, 9))
    said = overheard(endless)
    assert [(r.text, r.error, len(r.scores)) for r in chain(*endless.answer(asked))] == [("", None, 2)] * 4
    assert sorted(map(len, said)) == [5, 5, 9, 9]
    assert all(r.cut is True for r in chain(*endless.answer(asked)))
    GenerationConfig(eos_token_id=[1, 0], pad_token_id=2).save_pretrained(tmp_path)
    at_once = TransformersEngine(tmp_path, way=way, decoding=DECODING)
    said = overheard(at_once)
    assert [(r.text, r.error, len(r.scores)) for r in chain(*at_once.answer(asked))] == [("", None, 2)] * 4
    assert said == [[]] * 4
    assert all(r.cut is False for r in chain(*at_once.answer(asked)))


def overheard(engine: TransformersEngine) -> list[list[int]]:
    """Where the tokens of every answer are going to stand."""
    texts, said = engine.renderer.texts, []

    def listen(tokens: list[list[int]]) -> list[str]:
        said.extend(map(list, tokens))
        return texts(tokens)

    engine.renderer.texts = listen  # type: ignore[method-assign, assignment]
    return said


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def test_pictures_of_every_kind(llava: Path) -> None:
    """Palette, grey, 16 bits, transparent and animated ones are answered as the picture that a person sees."""
    colours = Image.open(io.BytesIO(picture(3))).convert("RGB")
    palette, grey = colours.quantize(16), colours.convert("L")
    deep = Image.new("I;16", grey.size)
    deep.putdata([value * 256 + 255 for value in grey.get_flattened_data()])
    clear = palette.convert("RGBA")
    clear.putalpha(255)
    seen = palette.convert("RGB")
    kinds = {
        encoded(palette, "PNG"): seen,
        encoded(palette, "GIF", save_all=True, append_images=[palette.transpose(Image.Transpose.ROTATE_180)]): seen,
        encoded(clear, "PNG"): seen,
        encoded(deep, "PNG"): grey.convert("RGB"),
        encoded(colours.convert("CMYK"), "TIFF"): colours.convert("CMYK").convert("RGB"),
    }
    prompts = [Prompt("Is the cat left of the dog?", ("Yes", "No")), Prompt("Is it?")]
    engine = TransformersEngine(llava, decoding=DECODING)
    replies = engine.answer([(data, prompts) for data in kinds])
    expected = engine.answer([(encoded(image, "PNG"), prompts) for image in kinds.values()])
    assert [[(r.text, r.error) for r in row] for row in replies] == [
        [(r.text, r.error) for r in row] for row in expected
    ]
    assert not any(reply.error for row in replies for reply in row)
    assert len({row[0].scores[0].logp for row in replies}) > 2
    (bad,) = engine.answer([(b"https://example.org/cat.png", prompts)])
    assert all("not a picture" in (reply.error or "") for reply in bad)
