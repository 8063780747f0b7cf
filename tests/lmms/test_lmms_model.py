"""`--model vsre` over a scripted engine, by lmms-eval's own requests; skipped where lmms-eval is not installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any

import pytest
from diagnose_data import Scripted, picture
from PIL import Image

from vsre.diagnose import Prompt, Reply, Score
from vsre.errors import VsreError
from vsre.lmms.scoring import FAILED
from vsre.sources.images import load_image

WHY = "lmms-eval is not installed in this Python (docs/lmms-eval.md says how it is)"
here = pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason=WHY)


class Engine(Scripted):
    """A scripted engine that remembers how requests were put together."""

    def __init__(self, rule: Any, **known: Any) -> None:
        super().__init__(rule, batch_images=known.get("batch_images", 8))
        self.known = known
        self.batches: list[list[tuple[bytes | None, list[str]]]] = []

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        self.batches.append([(data, [p.text for p in prompts]) for data, prompts in asked])
        return super().answer(asked)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """make(rule, docs, **arguments): the plugin's model over a scripted engine; `docs` become its task's."""
    import vsre.lmms.model as module

    def make(rule: Any, docs: Sequence[Any] = (), **arguments: Any) -> Any:
        monkeypatch.setattr(module, "TransformersEngine", lambda name, **known: Engine(rule, **known))
        made = module.Vsre(**arguments)
        made.task_dict = {"task": {"test": list(docs)}}
        return made

    return make


def request(doc: int, *arguments: Any, visual: Any = lambda doc: [doc["image"]], kind: str = "generate_until") -> Any:
    from lmms_eval.api.instance import Instance

    metadata = {"task": "task", "doc_id": doc, "repeats": 1}
    return Instance(kind, (*arguments, visual, doc, "task", "test"), 0, metadata)


def shown(*numbers: int) -> list[dict[str, Any]]:
    return [{"image": load_image(picture(number))} for number in numbers]


def echo(prompt: Prompt) -> Reply:
    return Reply(f"  {prompt.text}!")


GREEDY = {"max_new_tokens": 16, "temperature": 0, "do_sample": False, "until": []}


@here
def test_answers_come_in_order_and_pictures_are_shared(model: Any) -> None:
    made = model(echo, shown(0, 1, 0, 1, 2), batch_images=2)
    requests = [request(i, f"<image>\nQuestion {i}", GREEDY) for i in range(5)]
    assert made.generate_until(requests) == [f"  Question {i}!" for i in range(5)]
    asked = [[texts for _, texts in batch] for batch in made.engine.batches]
    assert asked == [[["Question 0", "Question 2"], ["Question 1", "Question 3"]], [["Question 4"]]]
    data = made.engine.batches[1][0][0]
    assert load_image(data).tobytes() == shown(2)[0]["image"].tobytes()


@here
def test_a_picture_is_shown_once_for_several_tasks(model: Any) -> None:
    from datasets import Dataset

    made = model(echo, batch_images=1)
    rows = [{"image_id": f"id-{n}", "number": n} for n in (0, 1, 2)]
    made.task_dict = {name: {"test": Dataset.from_list(rows)} for name in ("task", "other")}
    requests = [
        request(i, f"task {i}", GREEDY, visual=lambda doc: [shown(doc["number"])[0]["image"]]) for i in range(3)
    ]
    requests += [request(i, f"other {i}", GREEDY, visual=requests[0].args[2]) for i in range(3)]
    for later in requests[3:]:
        later.arguments = (*later.arguments[:4], "other", "test")
    assert made.generate_until(requests) == [f"  {task} {i}!" for task in ("task", "other") for i in range(3)]
    assert [[texts for _, texts in batch] for batch in made.engine.batches] == [
        [[f"task {i}", f"other {i}"]] for i in range(3)
    ]


@here
def test_each_request_has_its_task_s_limit(model: Any) -> None:
    made = model(lambda prompt: Reply(prompt.style), shown(0))
    styles = made.generate_until([request(0, "a", GREEDY | {"max_new_tokens": n}) for n in (3, 64, 3)])
    assert [made.limits.limit(style) for style in styles] == [3, 64, 3]


@here
def test_answers_are_cut_where_the_task_says(model: Any) -> None:
    made = model(lambda prompt: Reply("Yes\n\nNo. Maybe"), shown(0))
    untils = [[], ["\n\n"], "No", ["", "."], None]
    said = made.generate_until([request(0, str(i), GREEDY | {"until": until}) for i, until in enumerate(untils)])
    assert said == ["Yes\n\nNo. Maybe", "Yes", "Yes\n\n", "Yes\n\nNo", "Yes\n\nNo. Maybe"]


@here
def test_what_cannot_be_answered_is_no_answer_and_is_told(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from loguru import logger

    told: list[str] = []
    sink = logger.add(told.append, level="ERROR")
    broken = lambda prompt: Reply(error="out of tokens") if prompt.text == "bad" else Reply("Yes")  # noqa: E731
    made = model(broken, shown(0, 1))

    def unreadable(doc: Any) -> Any:
        raise OSError("truncated")

    said = made.generate_until(
        [
            request(0, "good", GREEDY),
            request(1, "bad", GREEDY),
            request(0, "two", GREEDY, visual=lambda doc: [doc["image"]] * 2),
            request(0, "none", GREEDY, visual=lambda doc: []),
            request(0, "text", GREEDY, visual=None),
            request(0, "video", GREEDY, visual=lambda doc: ["a.mp4"]),
            request(0, "unreadable", GREEDY, visual=unreadable),
        ]
    )
    logger.remove(sink)
    assert said == ["Yes", *[FAILED] * 6]
    text = "".join(told)
    assert "1 of 7 requests could not be answered: out of tokens" in text and "truncated" in text and "str" in text
    with pytest.raises(VsreError, match="Not one of 1 requests could be answered: out of tokens"):
        made.generate_until([request(0, "bad", GREEDY)])


@here
@pytest.mark.parametrize("wanted", [{"do_sample": True}, {"temperature": 0.7}, {"num_beams": 3}])
def test_sampling_is_refused_not_ignored(model: Any, wanted: dict[str, Any]) -> None:
    with pytest.raises(VsreError, match="answers greedily"):
        model(echo, shown(0)).generate_until([request(0, "a", GREEDY | wanted)])


@here
def test_likelihoods_are_losses_and_reach_a_task_as_numbers(model: Any) -> None:
    from lmms_eval.api.instance import unwrap_generation_output

    prompts: list[Prompt] = []

    def rule(prompt: Prompt) -> Reply:
        prompts.append(prompt)
        return Reply("Yes, it is", tuple(Score(-float(len(o)), 2, end=-1.0) for o in prompt.options))

    made = model(rule, shown(0, 1))
    asked = [(0, " Yes"), (0, " Yesterday"), (1, " Yes"), (0, " No way")]
    told = made.loglikelihood([request(doc, "ctx", option, kind="loglikelihood") for doc, option in asked])
    assert [unwrap_generation_output(each)[0] for each in told] == [
        (4 / 3, True), (10 / 3, False), (4 / 3, True), (7 / 3, False),
    ]  # fmt: skip
    assert [p.options for p in prompts] == [("Yes", "Yesterday", "No way"), ("Yes",)] and all(p.end for p in prompts)
    with pytest.raises(VsreError, match="mutual information"):
        made.loglikelihood([type("R", (), {"args": ("", "Yes"), "task_name": "task"})()])


@here
def test_a_likelihood_task_with_failures_has_no_score(model: Any) -> None:
    """lmms-eval takes the first of options that all lost: with the right one first every failure would be a hit."""
    from lmms_eval.api.instance import unwrap_generation_output
    from loguru import logger

    def rule(prompt: Prompt) -> Reply:
        if prompt.text.startswith("bad"):
            return Reply(error="out of memory")
        return Reply("No", (Score(-2.0, 1, end=0.0), Score(-1.0, 1, end=0.0)))

    def asked(bad: int, good: int) -> list[Any]:
        contexts = [f"bad {n}" for n in range(bad)] + [f"good {n}" for n in range(good)]
        return [request(0, c, option, kind="loglikelihood") for c in contexts for option in (" Yes", " No")]

    with pytest.raises(VsreError, match=r"^task: 2 of 101 likelihood questions could not .* \(out of memory\)"):
        model(rule, shown(0)).loglikelihood(asked(2, 99))
    made = model(rule, shown(0))
    losses = [unwrap_generation_output(each)[0][0] for each in made.loglikelihood(asked(1, 99))]
    assert losses == [float("inf")] * 2 + [1.0, 0.5] * 99
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING")
    made.clean()
    logger.remove(sink)
    assert "task: 1 of 100 likelihood questions could not be answered and counted as the first option" in "".join(told)


@here
def test_arguments(model: Any) -> None:
    assert model(echo, batch_size="1").engine.known["batch_prompts"] == 64
    assert model(echo, batch_size="7").engine.known["batch_prompts"] == 7
    assert model(echo, batch_prompts="5", batch_images=3).engine.known["batch_images"] == 3
    assert model(echo, batch_size="auto", way="plain").engine.known["way"] == "plain"
    for wrong, says in (({"attn": "x"}, "'attn'"), ({"way": "fast"}, "way=fast"), ({"batch_size": "many"}, "many")):
        with pytest.raises(VsreError, match=says):
            model(echo, **wrong)
    with pytest.raises(VsreError, match="several rounds"):
        model(echo).generate_until_multi_round([])


@here
def test_pictures_of_any_mode_are_shown() -> None:
    from vsre.lmms.model import encoded

    for mode in ("RGB", "L", "LA", "P", "RGBA", "1", "I", "I;16", "F", "CMYK", "HSV", "YCbCr"):
        image = Image.new(mode, (5, 4))
        image.info["exif"] = b"Exif\0\0broken"
        seen = load_image(encoded(image))
        assert seen.mode == "RGB" and seen.size == (5, 4)
    rgb = load_image(picture(3))
    assert load_image(encoded(rgb)).tobytes() == rgb.tobytes()


@here
def test_lmms_eval_finds_the_model() -> None:
    from lmms_eval.models import get_model

    if not any(p.name == "vsre" for p in importlib.metadata.entry_points(group="lmms_eval.models")):
        pytest.skip("vsre is on the path but not installed: its entry points are not known")
    from vsre.lmms.model import Vsre

    assert get_model("vsre") is Vsre
