import pickle
from typing import Any

import pytest
from fake_lookers import Says, knowing

from vsre.errors import VsreError
from vsre.relations.grammar import caption
from vsre.relations.things import Verdict
from vsre.triplets import Triplet
from vsre.verify.config import Judge
from vsre.verify.judge import VlmJudge


def triplet(subject: str = "cat") -> Triplet:
    said = caption(subject, "behind", "dog")
    return Triplet("name:1", "1.jpg", subject, "behind", "dog", said, True, "x", "x", image=b"picture")


@pytest.mark.parametrize(("truth", "verdict"), [(True, Verdict.PASS), (False, Verdict.FAIL)])
def test_one_who_is_consistent_is_heard(truth: bool, verdict: Verdict) -> None:
    engine = Says(knowing(truth))
    [opinion] = VlmJudge(Judge(model="any"), engine=engine).ask([triplet()])
    assert opinion.verdict is verdict
    assert [a["holds"] for a in opinion.answers] == [truth] * 3
    assert engine.asked[0][0] == b"picture"
    assert [("is not" in p) for p in engine.asked[0][1]] == [False, False, True], "the denial is asked too"


@pytest.mark.parametrize("always", ["Yes", "No", "True", "It depends."])
def test_one_who_always_says_the_same_is_not_heard(always: str) -> None:
    [opinion] = VlmJudge(Judge(model="any"), engine=Says(lambda prompt: always)).ask([triplet()])
    assert opinion.verdict is Verdict.UNDECIDED and len(opinion.answers) == 3


def test_more_templates_must_agree_too() -> None:
    engine = Says(lambda prompt: knowing(True)(prompt) if "Quick check" not in prompt else "No")
    judge = VlmJudge(Judge(model="any", packs=("pool",)), engine=engine)
    [opinion] = judge.ask([triplet()])
    assert opinion.verdict is Verdict.UNDECIDED and len(opinion.answers) > 40


def test_one_failed_answer_is_no_verdict_and_none_at_all_an_error() -> None:
    some = VlmJudge(Judge(model="any"), engine=Says(lambda p: None if "cat" in p else knowing(True)(p)))
    assert [o.verdict for o in some.ask([triplet(), triplet("cow")])] == [Verdict.UNDECIDED, Verdict.PASS]
    with pytest.raises(VsreError, match="gave no answer at all: out of memory"):
        VlmJudge(Judge(model="any"), engine=Says(lambda p: None)).ask([triplet()])


def test_a_pickled_judge_leaves_its_engine_behind() -> None:
    judge = VlmJudge(Judge(model="any"), engine=Says(lambda prompt: "Yes"))
    assert pickle.loads(pickle.dumps(judge)).engine is None


def test_a_real_model_is_asked(tiny_vsre_folder: Any) -> None:
    """A random model says nothing that can be read: no verdict, every answer kept."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), "red").save(buffer, "PNG")
    judge = VlmJudge(Judge(model=str(tiny_vsre_folder)), device="cpu")
    [opinion] = judge.ask([triplet().replace(image=buffer.getvalue())])
    assert opinion.verdict is Verdict.UNDECIDED
    assert len(opinion.answers) == 3 and all(a["p_yes"] is not None for a in opinion.answers)
    assert "files" in judge.identity()
