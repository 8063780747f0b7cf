"""The shared-prefix way must give what the model's own generate and forward give."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Literal

import pytest
import torch
from diagnose_data import make_triplets, picture, strong
from PIL import Image
from transformers import GenerationConfig
from transformers.cache_utils import DynamicLayer

from tiny_models import tiny_llava, tiny_window_config
from vsre.diagnose import Decoding, Prompt, Reply, Score, TransformersEngine
from vsre.diagnose.branches import Branches
from vsre.diagnose.prompts import Prefix, Renderer
from vsre.diagnose.shared_prefix import SharedPrefix
from vsre.diagnose.split import SplitBranches
from vsre.diagnose.ways import Job
from vsre.errors import VsreError
from vsre.rewrite import FORMATS, ask, load_pack, read_answer
from vsre.sources.images import load_image

DECODING = Decoding(short_tokens=4, full_tokens=12)


@pytest.fixture(scope="module")
def asked() -> list[tuple[bytes, list[Prompt]]]:
    """Three images of several shapes; all formats, both styles, short and long prompts among the templates."""
    packs = (load_pack("phase1").templates, load_pack("held-out").templates, load_pack("phase4").templates[::4])
    templates = [t for pack in packs for t in pack]
    made = []
    for i, triplet in enumerate(make_triplets(4, 1)):
        if triplet.subject_box:
            prompts = [Prompt(ask(t, triplet).prompt, t.format.options, t.style) for t in templates]
            made.append((picture(i, size=(64 + 40 * i, 48)), prompts))
    return made


def test_shared_prefix_equals_generate(folder: Path, asked: list[tuple[bytes, list[Prompt]]]) -> None:
    fast = TransformersEngine(folder, decoding=DECODING, batch_prompts=16)
    slow = TransformersEngine(folder, decoding=DECODING, way="plain")
    one, other = fast.answer(asked), slow.answer(asked)
    assert fast.notes()["way"] == "shared prefix", fast.notes()
    assert fast.notes()["prefix_shapes"] == {"shared": 1, "of_these_copied": 0, "plain": 0}
    assert fast.notes()["largest_difference"] < 1e-4
    assert slow.notes()["way"] == "plain"
    texts = set()
    for a, b in zip(chain(*one), chain(*other), strict=True):
        assert a.error is None and b.error is None
        assert a.text == b.text
        assert a.p_yes == pytest.approx(b.p_yes, abs=1e-4)
        assert a.logp_yes == pytest.approx(b.logp_yes, abs=1e-3)
        texts.add(a.text)
    assert len(texts) > 10  # a model that always says the same would prove nothing
    assert {len(fast.renderer.option(f.yes)) for f in FORMATS.values()} != {1}  # options of several tokens were asked


def test_likelihood_is_the_forward_pass(folder: Path, asked: list[tuple[bytes, list[Prompt]]]) -> None:
    engine = TransformersEngine(folder, decoding=DECODING)
    data, prompts = asked[0]
    long = next(p for p in prompts if len(engine.renderer.option(p.options[0])) > 1)
    reply = engine.answer([(data, [long])])[0][0]
    image, rendered = load_image(data), engine.renderer.render([long.text])[0]
    inputs = engine.processor(images=image, text=rendered + " " + long.options[0], return_tensors="pt")
    count = len(engine.renderer.option(long.options[0]))
    with torch.inference_mode():
        logs = engine.model(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    expected = sum(logs[-1 - k, ids[-k]] for k in range(1, count + 1))
    assert reply.logp_yes == pytest.approx(float(expected), abs=1e-3)


def test_batch_size_changes_nothing(llava: Path, asked: list[tuple[bytes, list[Prompt]]]) -> None:
    few = [(data, prompts[:6]) for data, prompts in asked]
    one = TransformersEngine(llava, decoding=DECODING, batch_prompts=1).answer(few)
    many = TransformersEngine(llava, decoding=DECODING, batch_prompts=100).answer(few)
    assert [[r.text for r in row] for row in one] == [[r.text for r in row] for row in many]


def test_bad_pictures_and_prompts_are_errors_alone(folder: Path) -> None:
    form = FORMATS["yes-no"]
    good, long = Prompt("Is it?", form.options, "short"), Prompt("Is it? " * 2000, form.options, "short")
    placeholder = Prompt("Is <image> it?", form.options, "short")
    for way in ("auto", "plain"):
        engine = TransformersEngine(folder, decoding=DECODING, way=way)
        replies = engine.answer(
            [(None, [good]), (b"", [good]), (picture(0)[:300], [good]), (picture(1), [good, long, placeholder, good])]
        )
        assert [bool(r.error) for row in replies for r in row] == [True, True, True, False, True, True, False]
        assert "no picture" in replies[0][0].error
        assert "beyond the model's 1024" in replies[3][1].error
        assert replies[3][0] == replies[3][3]


def test_falls_back_when_the_ways_differ(
    llava: Path, asked: list[tuple[bytes, list[Prompt]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [(asked[0][0], asked[0][1][:3])]
    expected = TransformersEngine(llava, decoding=DECODING, way="plain").answer(few)
    extend = Branches.extend
    monkeypatch.setattr(Branches, "extend", lambda self, ids: extend(self, ids) + 0.1)
    engine = TransformersEngine(llava, decoding=DECODING)
    assert engine.answer(few) == expected
    assert engine.notes()["way"] == "plain" and "apart" in engine.notes()["why"]
    monkeypatch.setattr(Branches, "extend", lambda self, ids: 1 / 0)
    engine = TransformersEngine(llava, decoding=DECODING)
    assert engine.answer(few) == expected
    assert "ZeroDivisionError" in engine.notes()["why"]


def test_each_shape_of_prefix_is_proved_by_itself(
    llava: Path, asked: list[tuple[bytes, list[Prompt]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [(data, prompts[:4]) for data, prompts in asked]
    expected = TransformersEngine(llava, decoding=DECODING, way="plain").answer(few)
    # Pictures of one model have one shape here, so let the pixels tell apart two; branches go wrong for one of them.
    pixels = [load_image(data).convert("L").resize((1, 1)).getpixel((0, 0)) for data, _ in few]
    odd = [p == max(pixels) for p in pixels]
    assert 0 < sum(odd) < len(odd)
    prefix, branch = Renderer.prefix, SharedPrefix.branch
    wrong: set[int] = set()

    def told_apart(self: Renderer, image: Image.Image) -> Prefix:
        made = prefix(self, image)
        if image.convert("L").resize((1, 1)).getpixel((0, 0)) == max(pixels):
            made.tensors["odd"] = torch.zeros(1)
        return made

    def misled(
        self: SharedPrefix, kind: type[Branches], numbers: list[int], prefilled: object, jobs: list[Job], **more: bool
    ) -> Branches:
        made = branch(self, kind, numbers, prefilled, jobs, **more)
        made.logits += 0.5 * any(odd[n] for n in numbers)
        wrong.update(numbers if any(odd[n] for n in numbers) else ())
        return made

    prefill = SharedPrefix.prefill
    bare = lambda self, prefixes: prefill(  # noqa: E731
        self, [Prefix(p.ids, {n: t for n, t in p.tensors.items() if n != "odd"}) for p in prefixes]
    )
    monkeypatch.setattr(SharedPrefix, "prefill", bare)
    monkeypatch.setattr(Renderer, "prefix", told_apart)
    monkeypatch.setattr(SharedPrefix, "branch", misled)
    engine = TransformersEngine(llava, decoding=DECODING)
    replies = engine.answer(few)
    assert [[r.text for r in row] for row in replies] == [[r.text for r in row] for row in expected]
    assert wrong and engine.notes()["prefix_shapes"] == {"shared": 1, "of_these_copied": 0, "plain": 1}
    assert engine.notes()["way"] == "shared prefix for 1 of 2 shapes of prefix, plain for the others"
    assert "apart" in engine.notes()["why"]


def test_out_of_memory_halves_the_batch(
    llava: Path, asked: list[tuple[bytes, list[Prompt]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [(asked[0][0], asked[0][1][:8])]
    engine = TransformersEngine(llava, decoding=DECODING, batch_prompts=8)
    expected = engine.answer(few)
    chunk = type(engine._shared)._answer_chunk

    def full(self, numbers, cache, length, jobs):  # type: ignore[no-untyped-def]
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        chunk(self, numbers, cache, length, jobs)

    monkeypatch.setattr(type(engine._shared), "_answer_chunk", full)
    again = engine.answer(few)
    assert [r.text for r in again[0]] == [r.text for r in expected[0]]
    assert engine.notes()["batch_prompts"] == 2


def test_a_lone_prompt_is_compared_padded(
    llava: Path, asked: list[tuple[bytes, list[Prompt]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that does not pass positions on is right as long as nothing is padded; the next batch might be."""
    for kind in (Branches, SplitBranches):
        forward = kind._forward

        def counted_anew(self, ids, positions, forward=forward, **more):  # type: ignore[no-untyped-def]
            columns = self.mask.shape[1] + getattr(self, "prefix", self.cache).get_seq_length() * (
                type(self) is SplitBranches
            )
            default = torch.arange(columns - ids.shape[1], columns).expand_as(ids)
            return forward(self, ids, default, **more)

        monkeypatch.setattr(kind, "_forward", counted_anew)
    short, long = sorted(asked[0][1], key=lambda p: len(p.text))[:: len(asked[0][1]) - 1]
    expected = TransformersEngine(llava, decoding=DECODING, way="plain").answer([(asked[0][0], [short, long])])
    engine = TransformersEngine(llava, decoding=DECODING)
    assert engine.answer([(asked[0][0], [short])])[0] == expected[0][:1]
    assert engine.notes()["way"] == "plain" and "apart" in engine.notes()["why"], engine.notes()
    assert [r.text for r in engine.answer([(asked[0][0], [short, long])])[0]] == [r.text for r in expected[0]]


@pytest.mark.parametrize("window", [64, 512])
def test_windows_of_attention(window: int, asked: list[tuple[bytes, list[Prompt]]], tmp_path: Path) -> None:
    """Padding takes places in a window: prompts that could cross it are asked plainly."""
    model = strong(tiny_llava(tmp_path, tiny_window_config(window)))
    expected = TransformersEngine(model, decoding=DECODING, way="plain").answer(asked)
    engine = TransformersEngine(model, decoding=DECODING)
    for one, other in zip(chain(*engine.answer(asked)), chain(*expected), strict=True):
        assert one.error is None and one.text == other.text
        assert one.logp_yes == pytest.approx(other.logp_yes, abs=1e-3)
    notes = engine.notes()
    count = sum(len(prompts) for _, prompts in asked)
    assert notes["plain_prompts"] == (0 if window == 512 else count), notes
    assert notes["way"] == ("shared prefix" if window == 512 else "plain")
    assert notes["prefix_shapes"]["of_these_copied"] == notes["prefix_shapes"]["shared"]


def test_answers_that_grow_beyond_a_window(asked: list[tuple[bytes, list[Prompt]]], tmp_path: Path) -> None:
    """The comparison stays inside this window, the longest answers do not."""
    data, prompts = asked[0]
    tokenizer = TransformersEngine(strong(tiny_llava(tmp_path / "a", tiny_window_config(512)))).renderer
    longest = max(len(ids) for ids in tokenizer.tokenize(tokenizer.render([p.text for p in prompts])))
    model = strong(tiny_llava(tmp_path / "b", tiny_window_config(35 + longest + 6)))
    expected = TransformersEngine(model, decoding=DECODING, way="plain").answer([(data, prompts)])
    engine = TransformersEngine(model, decoding=DECODING)
    assert [r.text for r in engine.answer([(data, prompts)])[0]] == [r.text for r in expected[0]]
    notes = engine.notes()
    assert notes["prefix_shapes"]["of_these_copied"] == 1, notes
    assert 0 < notes["plain_prompts"] < len(prompts) and "window" in notes["plain_prompts_why"], notes


def test_thoughts_that_the_template_opens_are_no_answer(
    llava: Path, asked: list[tuple[bytes, list[Prompt]]], tmp_path: Path
) -> None:
    """What is cut in the middle of them is unfinished, and what would come next is no P(yes)."""
    shutil.copytree(llava, tmp_path / "thinks")
    engine = TransformersEngine(llava, decoding=DECODING)
    template = engine.renderer.processor.chat_template
    (tmp_path / "thinks" / "chat_template.jinja").write_text(template + "{{ '<think>' if add_generation_prompt }}")
    thinking = TransformersEngine(tmp_path / "thinks", decoding=DECODING)
    data, prompts = asked[0]
    replies = thinking.answer([(data, prompts[:2])])[0]
    assert all(reply.text.startswith("<think>") and reply.logp_yes is None for reply in replies)
    assert read_answer(replies[0].text, FORMATS["yes-no"]).reason == "the reasoning never ends"


def test_what_fails_behind_a_prefix_is_asked_plainly(
    llava: Path, asked: list[tuple[bytes, list[Prompt]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [(data, prompts[:3]) for data, prompts in asked]
    expected = TransformersEngine(llava, decoding=DECODING, way="plain").answer(few)
    engine = TransformersEngine(llava, decoding=DECODING)
    assert engine.answer(few)[0][0].error is None
    prefill, chunk = SharedPrefix.prefill, SharedPrefix._answer_chunk
    monkeypatch.setattr(SharedPrefix, "prefill", lambda *_: 1 / 0)
    assert [[r.text for r in row] for row in engine.answer(few)] == [[r.text for r in row] for row in expected]
    count = sum(len(prompts) for _, prompts in few)
    assert engine.notes()["plain_prompts"] == count
    assert "ZeroDivisionError" in engine.notes()["plain_prompts_why"]
    monkeypatch.setattr(SharedPrefix, "prefill", prefill)

    def infinite(self, *args):  # type: ignore[no-untyped-def]
        bad = (Score(math.nan, 1), Score(0.0, 1))
        monkeypatch.setattr(SharedPrefix, "scores", lambda self, jobs, *_: [bad] * len(jobs))
        return chunk(self, *args)

    monkeypatch.setattr(SharedPrefix, "_answer_chunk", infinite)
    assert [[r.text for r in row] for row in engine.answer(few)] == [[r.text for r in row] for row in expected]
    assert engine.notes()["plain_prompts"] == 2 * count and "finite" in engine.notes()["plain_prompts_why"]


def test_prefixes_that_do_not_fit_are_run_in_parts(
    llava: Path, asked: list[tuple[bytes, list[Prompt]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [(data, prompts[:3]) for data, prompts in asked]
    assert len(few) > 2
    engine = TransformersEngine(llava, decoding=DECODING)
    expected = engine.answer(few)
    prefill, sizes = SharedPrefix.prefill, []

    def full(self, prefixes):  # type: ignore[no-untyped-def]
        sizes.append(len(prefixes))
        if len(prefixes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prefill(self, prefixes)

    monkeypatch.setattr(SharedPrefix, "prefill", full)
    for _ in range(2):
        assert [[r.text for r in row] for row in engine.answer(few)] == [[r.text for r in row] for row in expected]
    assert engine.notes()["plain_prompts"] == 0
    assert sum(size > 1 for size in sizes) == 1  # remembered


def test_caches_that_change_in_place_are_not_shared(llava: Path, asked: list[tuple[bytes, list[Prompt]]]) -> None:
    class Recurrent(DynamicLayer):
        pass

    engine = TransformersEngine(llava, decoding=DECODING)
    prefilled = engine._shared.prefill([engine.renderer.prefix(load_image(asked[0][0]))])
    for layer in prefilled.cache.layers:
        layer.__class__ = Recurrent
    for kind in (Branches, SplitBranches):
        with pytest.raises(VsreError, match=r"Recurrent|not a plain one"):
            kind(engine.model, prefilled, [0], [[5, 6]], pad=0)


def test_folders_that_are_no_model(llava: Path, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"config\.json"):
        TransformersEngine(tmp_path)
    with pytest.raises(VsreError, match="no such"):
        TransformersEngine(tmp_path / "absent")
    (tmp_path / "config.json").write_text((llava / "config.json").read_text())
    with pytest.raises(VsreError, match="safetensors"):
        TransformersEngine(tmp_path)


def test_no_chat_template(llava: Path, tmp_path: Path) -> None:
    for file in llava.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).symlink_to(file)
    for name in ("processor_config.json", "tokenizer_config.json"):
        content = json.loads((llava / name).read_text()) if (llava / name).exists() else {}
        content.pop("chat_template", None)
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(VsreError, match="chat template"):
        TransformersEngine(tmp_path)


def test_settings_tell_what_makes_the_inputs(llava: Path, tmp_path: Path) -> None:
    """Another chat template or picture size gives other answers: no run may go on, no kept answer be used."""

    def told(name: str, change: Callable[[Path], object]) -> str:
        folder = Path(shutil.copytree(llava, tmp_path / name))
        change(folder)
        return str(TransformersEngine(folder).settings()["processor"])

    def words(folder: Path) -> None:
        (file,) = folder.glob("chat_template.jinja")
        file.write_text(file.read_text().replace("USER: ", "User: "))

    def sizes(folder: Path) -> None:
        (file,) = (f for f in folder.glob("*processor_config.json") if "image_mean" in f.read_text())
        file.write_text(file.read_text().replace('"do_rescale": true', '"do_rescale": false'))

    changes = {"same": lambda _: None, "again": lambda _: None, "words": words, "sizes": sizes}
    same, again, *others = (told(name, change) for name, change in changes.items())
    assert same == again and len({same, *others}) == 3


def test_a_checkpoints_ends_hold_without_a_picture(llava: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llava, tmp_path / "model"))
    config = GenerationConfig.from_pretrained(folder)
    config.eos_token_id = [3, 7]
    config.save_pretrained(folder)
    engine = TransformersEngine(folder)
    assert engine._plain.end >= {3, 7} and engine.without_picture()._plain.end == engine._plain.end


def test_p_yes() -> None:
    assert Reply.yes_no("Yes", -1.0, -1.0).p_yes == 0.5
    assert Reply.yes_no("Yes", 0.0, -2000.0).p_yes == 1.0
    assert Reply.yes_no("Yes", -2000.0, 0.0).p_yes == 0.0
    assert Reply("Yes").p_yes is None


@pytest.mark.parametrize("way", ["auto", "plain"])
def test_any_options_and_their_end(
    folder: Path, way: Literal["auto", "plain"], asked: list[tuple[bytes, list[Prompt]]]
) -> None:
    """As many options as wanted, of any length, with and without the end token: all as the forward pass has them."""
    engine = TransformersEngine(folder, decoding=DECODING, way=way)
    data, prompts = asked[0]
    options = ("True", "the cat is left of the dog", "Not", "above")
    text = prompts[0].text
    (replies,) = engine.answer([(data, [Prompt(text, options, "none", end=True), Prompt(text, options[:3], "short")])])
    assert replies[0].text is None and replies[1].text is not None
    assert [len(r.scores) for r in replies] == [4, 3]
    image, rendered = load_image(data), engine.renderer.render([text])[0]
    (end,) = engine._plain.end
    for option, score in zip(options, replies[0].scores, strict=True):
        inputs = engine.processor(images=image, text=rendered + " " + option, return_tensors="pt")
        with torch.inference_mode():
            logs = engine.model(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        expected = float(sum(logs[-1 - k, ids[-k]] for k in range(1, score.tokens + 1)))
        assert score.logp == pytest.approx(expected, rel=1e-3)
        assert score.end == pytest.approx(float(logs[-1, end]), rel=1e-3)
        assert score.mean_with_end == pytest.approx((score.logp + score.end) / (score.tokens + 1))
    for short, long in zip(replies[1].scores, replies[0].scores, strict=False):
        assert short.end is None and short.logp == pytest.approx(long.logp, rel=1e-3)


def test_an_option_that_the_tokenizer_cannot_write(llava: Path, asked: list[tuple[bytes, list[Prompt]]]) -> None:
    engine = TransformersEngine(llava, decoding=DECODING)
    engine.renderer._options["日本"] = []  # byte-level tokenizers can write anything; word-level ones have unk for it
    (replies,) = engine.answer([(asked[0][0], [Prompt("Is it?", ("日本", "no"), "short")])])
    assert replies[0].scores == () and replies[0].text is not None and replies[0].p_yes is None
