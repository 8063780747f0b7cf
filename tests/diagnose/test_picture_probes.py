"""Probes: what is asked, and whether the figures tell a model that looks from one that does not."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnose_data import Scripted, write_data
from PIL import Image

from vsre.diagnose import Prompt, Reply, diagnose
from vsre.diagnose.probes import PROBES, WORDS, plan_probes, probe_templates
from vsre.diagnose.samples import read_samples
from vsre.errors import VsreError
from vsre.report.inputs import ReportRun, open_run
from vsre.report.reliance import reliance_rows
from vsre.sources.images import load_image
from vsre.triplets import Triplet, image_content_id

RED, BLUE = (220, 30, 30), (30, 30, 220)
RELATIONS = ("left of", "right of", "near", "far from", "above", "inside")


def scene(number: int, red_left: bool) -> bytes:
    """A red and a blue square side by side; the background tells the pictures apart."""
    image = Image.new("RGB", (64, 32), (90 + number, 160, 90))
    image.paste(RED, (4, 8, 20, 24) if red_left else (44, 8, 60, 24))
    image.paste(BLUE, (44, 8, 60, 24) if red_left else (4, 8, 20, 24))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def holds(relation: str, red_left: bool) -> bool:
    """Of the red square and the blue one."""
    return {"left of": red_left, "right of": not red_left, "far from": True}.get(relation, False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    triplets = []
    for number in range(24):
        image = scene(number, red_left=number % 2 == 0)
        for relation in RELATIONS:
            triplets.append(
                Triplet(
                    image_id=image_content_id(image),
                    image_name=f"{number}.png",
                    subject="red",
                    relation=relation,
                    object="blue",
                    caption=f"The red is {relation} the blue.",
                    label=holds(relation, number % 2 == 0),
                    split="test",
                    origin="test",
                    image=image,
                    width=64,
                    height=32,
                )
            )
    return write_data(tmp_path_factory.mktemp("probes"), triplets)


class Sees(Scripted):
    """Answers from the pixels, by the meaning of the words; sees nothing in a grey frame and says no."""

    def __init__(self) -> None:
        super().__init__(None, name="sees")

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        return [[self._one(load_image(image), prompt) for prompt in prompts] for image, prompts in asked if image]

    def _one(self, image: Image.Image, prompt: Prompt) -> Reply:
        pixels = np.asarray(image, np.int64)
        reds = np.argwhere((pixels[..., 0] > 200) & (pixels[..., 2] < 60))
        blues = np.argwhere((pixels[..., 2] > 200) & (pixels[..., 0] < 60))
        text = prompt.text.lower()
        relation = next(r for r in (*RELATIONS, "outside", "contain", "below") if r in text)
        truth = False
        if len(reds) and len(blues):
            red_left = bool(reds[:, 1].mean() < blues[:, 1].mean())
            # In the words, which of the two stands first?
            first_red = text.index("red") < text.index("blue")
            truth = relation == "outside" or holds(relation, red_left if first_red else not red_left)
        if " not " in text.split("true or false")[0]:
            truth = not truth
        yes, no = prompt.options
        return Reply.yes_no(yes if truth else no, *((-0.1, -3.0) if truth else (-3.0, -0.1)))


def reliance(engine: Any, data: Path, out: Path) -> dict[str, Any]:
    found: dict[str, Any] = diagnose(engine, data, ["test-s"], out, probes=60, progress=False)["picture_reliance"]
    return found


def value(figure: dict[str, Any]) -> float:
    return float(figure["value"])


def test_who_looks_is_found_to_look(data: Path, tmp_path: Path) -> None:
    found = reliance(Sees(), data, tmp_path)
    assert found["acc_t"]["base"]["value"] == 1.0
    assert {p: value(f) for p, f in found["acc_t"].items() if p not in ("blank", "other")} == {
        p: 1.0 for p in PROBES if p not in ("blank", "other", "words")
    }
    # With a grey frame only what is false is right: 2 of the 6 statements about a picture are true.
    assert value(found["gain"]["blank"]) == pytest.approx(1 / 3)
    assert 0 < value(found["kept"]["blank"]) < 1
    assert all(value(f) == 1.0 for f in found["follows"].values()), found["follows"]
    assert set(found["follows"]) >= {"left and right in the mirror", "one-way, swapped", "the denial", "the opposite"}
    assert value(found["contradiction"]["negated"]) == value(found["contradiction"]["opposite"]) == 0.0
    assert value(found["shift_p_yes"]["blank"]) > 0.1
    assert found["gain"]["blank"]["low"] > 0.2 and found["n_images"] == 10 and found["n_triplets"] == 60


def test_who_always_says_yes_is_found_out(data: Path, tmp_path: Path) -> None:
    found = reliance(Scripted(lambda p: Reply.yes_no(p.options[0], -0.1, -3.0)), data, tmp_path)
    assert value(found["gain"]["blank"]) == value(found["gain"]["other"]) == 0.0
    assert found["gain"]["blank"]["low"] == -found["gain"]["blank"]["high"] == pytest.approx(0.05 ** (1 / 10) - 1)
    assert value(found["kept"]["blank"]) == value(found["kept"]["other"]) == 1.0
    follows = found["follows"]
    assert value(follows["left and right in the mirror"]) == value(follows["the denial"]) == 0.0
    # It "follows" whatever asks for the same answer, and chance says so.
    assert value(follows["the inverse"]) == follows["the inverse"]["by_chance"] == 1.0
    assert value(found["contradiction"]["negated"]) == value(found["contradiction"]["opposite"]) == 1.0


def test_who_answers_by_the_words_keeps_its_answers(data: Path, tmp_path: Path) -> None:
    """Right about every relation whose label never changes here, and blind."""

    def rule(prompt: Prompt) -> Reply:
        truth = "far from" in prompt.text or "left of" in prompt.text
        return Reply.yes_no(prompt.options[0 if truth else 1], *((-0.1, -3.0) if truth else (-3.0, -0.1)))

    found = reliance(Scripted(rule), data, tmp_path)
    assert value(found["acc_t"]["base"]) > 0.6 and value(found["gain"]["blank"]) == 0.0
    assert value(found["kept"]["other"]) == 1.0 and value(found["shift_p_yes"]["other"]) == 0.0
    assert value(found["follows"]["left and right in the mirror"]) == 0.0


def test_unreadable_answers_follow_nothing(data: Path, tmp_path: Path) -> None:
    found = reliance(Scripted(lambda p: Reply("It depends.")), data, tmp_path)
    assert value(found["kept"]["blank"]) == 0.0 and found["shift_p_yes"] == {}
    # "turn" is asked for behind a yes only, and there is none.
    assert "left and right in the mirror" not in found["follows"] and value(found["follows"]["the inverse"]) == 0.0


def test_where_every_pair_has_an_error_there_are_no_shares(data: Path, tmp_path: Path) -> None:
    class NoGrey(Scripted):
        """Fails at every picture of one colour."""

        def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
            replies = super().answer(asked)
            grey = [image is not None and len(load_image(image).getcolors()) == 1 for image, _ in asked]
            return [[Reply(error="refused")] * len(r) if g else r for r, g in zip(replies, grey, strict=True)]

    found = reliance(NoGrey(lambda p: Reply(p.options[0])), data, tmp_path)
    assert found["kept"]["blank"] == {"value": None, "low": None, "high": None, "n": 0, "by_chance": None}
    assert found["kept"]["other"]["by_chance"] == 1.0
    page = {row["probe"]: row["mine"] for row in reliance_rows([open_run(ReportRun(name="mine", folder=tmp_path))])}
    assert "–" in page.values() and any(cell.endswith("chance 100") for cell in page.values())


def test_prompts_and_pictures(data: Path, tmp_path: Path) -> None:
    plan = plan_probes(data, triplets=12, seed=3)
    assert len(plan.images) == 2
    groups = list(plan.groups())
    assert sum(len(asked) for _, asked in groups) == plan.questions
    about = [(image, a) for image, asked in groups for a in asked]
    assert {a.question.pack for _, a in about} == set(PROBES) - {WORDS}
    denied = [a for _, a in about if a.denied]
    assert denied and all(a.question.prompt.startswith("The red is not ") for a in denied)
    assert {a.question.template for a in denied} == {"pool-08"} and len(probe_templates()) == 2
    shown: dict[str, set[bytes | None]] = {}
    for image, a in about:
        shown.setdefault(a.question.pack, set()).add(image)
    assert shown["base"] == shown["other"], "with two pictures each is the other's other"
    assert not shown["mirror"] & shown["base"] and len(shown["blank"]) == 1
    for image, asked in groups[:1]:
        key = asked[0].question.key
        others = [i for i, a in about if a.question.key == key and a.question.pack == "other"]
        assert image not in others
    # A false "left of" may be neither left nor right: nothing is right or wrong there.
    open_ones = {a.question.pack for _, a in about if a.unknown}
    assert open_ones == {"mirror", "swap", "opposite"}


def test_a_killed_run_asks_no_probe_again(data: Path, tmp_path: Path) -> None:
    whole = reliance(Sees(), data, tmp_path / "whole")
    engine = Sees()
    count = itertools.count()
    answer = engine.answer

    def until(asked: Any) -> Any:
        if next(count) == 20:
            raise KeyboardInterrupt
        return answer(asked)

    engine.answer = until  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        reliance(engine, data, tmp_path / "cut")
    held = len(read_samples(tmp_path / "cut" / "probes"))
    assert held > 0
    assert reliance(Sees(), data, tmp_path / "cut") == whole
    samples = read_samples(tmp_path / "cut" / "probes")
    ids = list(zip(*(samples[c].to_pylist() for c in ("key", "pack", "template")), strict=True))
    assert len(ids) == len(set(ids)) == len(read_samples(tmp_path / "whole" / "probes"))


def test_the_language_model_alone_is_asked_where_it_can_be(data: Path, tmp_path: Path) -> None:
    class Both(Sees):
        def without_picture(self) -> Scripted:
            return Scripted(lambda p: Reply.yes_no(p.options[1], -3.0, -0.1))

    found = reliance(Both(), data, tmp_path / "both")
    # It says no to everything: right about the 4 of 6 statements that are false.
    assert value(found["acc_t"]["words"]) == pytest.approx(2 / 3) and value(found["gain"]["words"]) == pytest.approx(
        1 / 3
    )
    reliance(Sees(), data, tmp_path / "one")
    assert (
        "cannot be asked without a picture"
        in json.loads((tmp_path / "one" / "run.json").read_text())["without_picture"]
    )


def test_one_picture_cannot_be_probed(data: Path, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="at least two pictures"):
        plan_probes(data, triplets=3)


@pytest.mark.parametrize("part", [{"limit": 12}, {"sample": 12}], ids=["limit", "sample"])
def test_of_a_part_no_more_is_probed_than_was_asked(data: Path, tmp_path: Path, part: dict[str, int]) -> None:
    found = diagnose(Sees(), data, ["test-s"], tmp_path, probes=400, progress=False, **part)  # type: ignore[arg-type]
    asked, probed = (read_samples(tmp_path / name)["image_id"].to_pylist() for name in ("samples", "probes"))
    assert set(probed) == set(asked) and found["picture_reliance"]["n_triplets"] == 12


def test_a_few_statements_of_each_picture_are_probed(data: Path) -> None:
    whole = plan_probes(data, triplets=12, seed=3)
    few = plan_probes(data, triplets=12, seed=3, per_image=1)
    assert len(few.images) == 12 > len(whole.images) and set(whole.images) <= set(few.images)
    groups = list(few.groups())
    assert sum(len(asked) for _, asked in groups) == few.questions
    assert len({a.question.key for _, asked in groups for a in asked if a.question.pack == "base"}) == 12
    assert sum(len(asked) for _, asked in few.without_pictures()) == 12 * len(probe_templates())
