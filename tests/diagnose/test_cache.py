"""Answers kept between runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diagnose_data import Scripted, make_triplets, picture, write_data

from vsre.diagnose import Interrupted, Prompt, Reply, Score, diagnose
from vsre.diagnose.cache import CachedEngine
from vsre.errors import VsreError

PROMPTS = [Prompt(f"Is it {i}?", ("Yes", "No")) for i in range(700)]


def says(prompt: Prompt) -> Reply:
    return Reply(f"answer to {prompt.text}", (Score(-0.5, 2, -1.0), Score(-1.5, 1)))


def test_the_same_question_is_asked_once(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "answers.sqlite"
    first, second = Scripted(says), Scripted(says)
    asked = [(picture(0), PROMPTS), (picture(1), PROMPTS[:2])]
    replies = CachedEngine(first, file).answer(asked)
    assert replies == [[says(p) for p in PROMPTS], [says(p) for p in PROMPTS[:2]]]
    again = CachedEngine(second, file)
    assert again.answer([(picture(1), PROMPTS[:3]), (picture(0), PROMPTS)]) == [
        [says(p) for p in PROMPTS[:3]],
        replies[0],
    ]
    assert second.prompts == [PROMPTS[2].text], "only what is new reaches the engine"
    assert again.notes()["cached_answers"] == 702 and again.settings() == second.settings()


@pytest.mark.parametrize(
    "change",
    [
        lambda e, image, p: (Scripted(says, name="another checkpoint"), image, p),
        lambda e, image, p: (e, picture(1), p),
        lambda e, image, p: (e, None, p),
        lambda e, image, p: (e, image, replace(p, text="Is it 1 ?")),
        lambda e, image, p: (e, image, replace(p, options=("No", "Yes"))),
        lambda e, image, p: (e, image, replace(p, style="full")),
    ],
)
def test_whatever_decides_an_answer_is_in_the_key(change: Any, tmp_path: Path) -> None:
    file, prompt = tmp_path / "answers.sqlite", PROMPTS[1]
    CachedEngine(Scripted(says), file).answer([(picture(0), [prompt])])
    engine, image, changed = change(Scripted(says), picture(0), prompt)
    CachedEngine(engine, file).answer([(image, [changed])])
    assert len(engine.prompts) == 1


def test_errors_are_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "answers.sqlite"
    broken = Scripted(lambda p: Reply(error="out of memory"))
    assert CachedEngine(broken, file).answer([(picture(0), PROMPTS[:1])])[0][0].error == "out of memory"
    assert CachedEngine(Scripted(says), file).answer([(picture(0), PROMPTS[:1])])[0][0] == says(PROMPTS[0])


def test_what_was_answered_before_a_stop_is_kept(tmp_path: Path) -> None:
    class Dies(Scripted):
        def answer(self, asked: Any) -> Any:
            done = super().answer(asked)
            raise Interrupted("the server is gone", [[done[0][0], None, *done[0][2:]]])

    file = tmp_path / "answers.sqlite"
    with pytest.raises(Interrupted, match="server is gone") as stopped:
        CachedEngine(Dies(says), file).answer([(picture(0), PROMPTS[:3])])
    assert stopped.value.replies == [[says(PROMPTS[0]), None, says(PROMPTS[2])]]
    engine = Scripted(says)
    CachedEngine(engine, file).answer([(picture(0), PROMPTS[:3])])
    assert engine.prompts == [PROMPTS[1].text]


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", make_triplets(4))

    def run(engine: Scripted, out: str) -> dict[str, Any]:
        cached = CachedEngine(engine, tmp_path / "answers.sqlite")
        return diagnose(cached, data, ["test-s"], tmp_path / out, probes=8, progress=False)

    first, second = Scripted(lambda p: Reply(p.options[0])), Scripted(lambda p: Reply(p.options[0]))
    assert run(first, "one") == run(second, "two")
    assert first.prompts and not second.prompts


def test_a_file_that_is_no_cache(tmp_path: Path) -> None:
    file = tmp_path / "answers.sqlite"
    file.write_text("this is no database, whatever its name may say " * 100)
    with pytest.raises(VsreError, match="cannot be used to keep answers"):
        CachedEngine(Scripted(says), file)


def test_what_a_cut_answer_is_and_where_a_server_stands_is_kept(tmp_path: Path) -> None:
    class Placed(Scripted):
        base_url = "http://a/v1"

    file, asked = tmp_path / "answers.sqlite", [(picture(0), PROMPTS[:1])]
    CachedEngine(Placed(lambda p: Reply("Yes, it", cut=True)), file).answer(asked)
    again, elsewhere = Placed(lambda p: Reply("No", cut=False)), Placed(lambda p: Reply("No", cut=False))
    assert [(r.text, r.cut) for r in CachedEngine(again, file).answer(asked)[0]] == [("Yes, it", True)]
    elsewhere.base_url = "http://b/v1"  # maybe another model of the same name
    assert [(r.text, r.cut) for r in CachedEngine(elsewhere, file).answer(asked)[0]] == [("No", False)]
