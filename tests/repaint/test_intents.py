import pytest

from vsre.relations.ontology import RELATIONS
from vsre.repaint import PaintJob, Vocabulary, intents
from vsre.repaint.edits import alike
from vsre.repaint.intents import Intent, NoIntent, contrary, intent_of
from vsre.repaint.painter import Setting
from vsre.repaint.prompts import PromptSpec, noun, phrase
from vsre.sources.coco import CATEGORY_ID, SUPERCATEGORY
from vsre.triplets import Box, Triplet

WORDS = Vocabulary(tuple(sorted(CATEGORY_ID)), frozenset(RELATIONS))
A, B = (0.1, 0.1, 0.4, 0.9), (0.5, 0.1, 0.9, 0.9)


def triplet(relation: str = "left of", label: bool = True, subject: str = "cat", object: str = "dog") -> Triplet:
    said = f"The {subject} is {relation} the {object}."
    return Triplet(
        "name:1", "1.jpg", subject, relation, object, said, label, "train", "vsr", subject_box=A, object_box=B
    )


def intent(
    source: Triplet, setting: Setting, truth: bool | None = None, words: Vocabulary = WORDS, **prompts: str
) -> Intent:
    job = PaintJob(source, setting, 5, "diffusion/1", {}, truth)
    return intent_of(job, words, PromptSpec.model_validate(prompts))


def said(found: Intent) -> list[tuple[str, str, Box | None]]:
    return [(s.caption, s.kind, s.subject_box) for s in found.statements]


def test_phrases() -> None:
    assert phrase("cat", "left of", "umbrella") == "a cat left of an umbrella"
    assert phrase("bowl", "contains", "apple") == "a bowl containing an apple"
    assert phrase("person", "has as a part", "tie") == "a person with a tie as a part"
    assert noun("scissors") == "a pair of scissors" and noun("broccoli") == "broccoli"
    assert all("  " not in phrase("cat", name, "dog") for name in RELATIONS)


def test_t2i_true_says_the_caption() -> None:
    found = intent(triplet(label=False), "t2i", True)
    assert found.prompt == "a photo of a cat left of a dog"
    assert said(found) == [("The cat is left of the dog.", "positive", None)]
    whole = intent(triplet(), "t2i", True, form="caption", suffix=" Oil on canvas.")
    assert whole.prompt == "The cat is left of the dog. Oil on canvas."


def test_t2i_false_paints_what_excludes_the_caption() -> None:
    found = intent(triplet(), "t2i", False)
    assert found.prompt == "a photo of a cat right of a dog"
    assert said(found) == [
        ("The cat is right of the dog.", "positive", None),
        ("The cat is left of the dog.", "relation-false", None),
    ]
    few = Vocabulary(("cat", "dog"), frozenset({"left of"}))
    assert intent(triplet(), "t2i", False, few).prompt == "a photo of a dog left of a cat", "the other way round"


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        ("across from", WORDS),
        ("close to", Vocabulary(("cat", "dog"), frozenset({"close to"}))),
        ("left of", Vocabulary(("cat", "dog"), frozenset(RELATIONS), pairs=frozenset({("cat", "dog")}))),
        ("a relation of one's own", WORDS),
    ],
)
def test_t2i_false_is_refused_where_nothing_excludes_it(relation: str, words: Vocabulary) -> None:
    assert contrary(triplet(relation), words) is None
    with pytest.raises(NoIntent, match=intents.NO_CONTRARY):
        intent(triplet(relation), "t2i", False, words)
    assert intent(triplet(relation), "t2i", True, words).statements


@pytest.mark.parametrize(
    ("label", "prompt", "kind"),
    [
        (True, "a photo of a cat left of a dog", "positive"),
        (False, "a photo of a cat and a dog", "relation-false"),
    ],
)
def test_i2i_keeps_label_and_boxes(label: bool, prompt: str, kind: str) -> None:
    found = intent(triplet(label=label), "i2i")
    assert found.prompt == prompt and said(found) == [("The cat is left of the dog.", kind, A)]


@pytest.mark.parametrize(("label", "kind"), [(True, "positive"), (False, "relation-false")])
def test_inpaint_swaps_the_subject(label: bool, kind: str) -> None:
    found = intent(triplet(label=label), "inpaint")
    new = found.substitute
    assert new is not None and SUPERCATEGORY[new] == "animal" and new not in ("cat", "dog")
    assert said(found) == [
        (f"The {new} is left of the dog.", kind, A),
        ("The cat is left of the dog.", "object-absent", None),
    ]
    assert all(s.object_box == B for s in found.statements)
    assert found.prompt == f"a photo of {noun(new)}"
    scene = intent(triplet(label=label), "inpaint", inpaint="scene").prompt
    assert scene == (f"a photo of {noun(new)} left of a dog" if label else f"a photo of {noun(new)} and a dog")


@pytest.mark.parametrize("subject", sorted(CATEGORY_ID))
def test_a_substitute_is_of_the_subjects_kind_and_no_look_alike(subject: str) -> None:
    source = triplet(subject=subject, object="traffic light" if subject != "traffic light" else "cat")
    found = intent(source, "inpaint").substitute
    assert found is not None and not alike(found, subject) and found not in (subject, source.object)
    if subject not in ("person", "tv"):
        assert SUPERCATEGORY[found] == SUPERCATEGORY[subject]


def test_a_substitute_is_none_that_a_held_out_caption_names() -> None:
    words = Vocabulary(("cat", "dog", "fox", "cow"), frozenset({"left of"}), pairs=frozenset({("cow", "dog")}))
    assert intent(triplet(), "inpaint", words=words).substitute == "fox"
    with pytest.raises(NoIntent, match=intents.NO_SUBSTITUTE):
        intent(triplet(), "inpaint", words=Vocabulary(("cat", "dog"), frozenset({"left of"})))


def test_the_painters_numbers_do_not_change_who_takes_the_place() -> None:
    jobs = [PaintJob(triplet(), "inpaint", 5, "diffusion/1", {"steps": n}) for n in range(12)]
    assert len({intent_of(job, WORDS, PromptSpec()).substitute for job in jobs}) == 1
