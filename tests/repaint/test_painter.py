from dataclasses import replace

import pytest

from vsre.repaint import Painted, PaintJob, Statement, Vocabulary
from vsre.repaint.painter import Parameters
from vsre.sources.protocols import SOURCE_IMAGE, image_names
from vsre.triplets import Triplet, image_content_id

CAT = Triplet(
    image_id="sha256:source",
    image_name="1.jpg",
    subject="cat",
    relation="left of",
    object="dog",
    caption="The cat is left of the dog.",
    label=True,
    split="train",
    origin="vsr",
)
JOB = PaintJob(CAT, "t2i", 7, "painter/1", {"steps": 30}, True)


def test_the_job_id_is_stable_and_depends_on_all_that_changes_the_picture() -> None:
    assert JOB.id == PaintJob(CAT, "t2i", 7, "painter/1", {"steps": 30}, True).id
    assert JOB.id == replace(JOB, parameters=Parameters(JOB.parameters)).id == "bac52a3c8dd317c0", (
        "and from version to version"
    )
    changed = [
        replace(JOB, setting="i2i"),
        replace(JOB, noise=1),
        replace(JOB, seed=8),
        replace(JOB, painter="painter/2"),
        replace(JOB, parameters={"steps": 31}),
        replace(JOB, truth=False),
        replace(JOB, triplet=CAT.replace(image_id="sha256:other")),
        replace(JOB, triplet=CAT.replace(caption="The cat is by the dog.", relation="by")),
        replace(JOB, triplet=CAT.replace(label=False)),
    ]
    assert len({JOB.id, *(job.id for job in changed)}) == 1 + len(changed)


def test_rows_carry_kind_boxes_and_where_they_come_from() -> None:
    box = (0.1, 0.2, 0.3, 0.4)
    said = (
        Statement("fox", "left of", "dog", "positive", box, (0.5, 0.5, 0.9, 0.9)),
        Statement("cat", "left of", "dog", "object-absent", None, (0.5, 0.5, 0.9, 0.9)),
    )
    new, gone = Painted(JOB, b"\x89PNG...", 32, 24, said, notes={"steps_run": 30}).triplets()
    assert (new.caption, new.label, new.subject_box) == ("The fox is left of the dog.", True, box)
    assert (gone.caption, gone.label, gone.subject_box) == (CAT.caption, False, None)
    assert new.origin == "repaint:t2i" and new.split == "train" and (new.width, new.height) == (32, 24)
    assert new.image_id == gone.image_id == image_content_id(b"\x89PNG...")
    assert new.image_name == f"{JOB.id}.png"
    assert [t.provenance["kind"] for t in (new, gone)] == ["positive", "object-absent"]
    expected = {SOURCE_IMAGE: "sha256:source", "source_key": CAT.key, "painter": "painter/1", "setting": "t2i"}
    assert expected.items() <= new.provenance.items()
    assert {"job": JOB.id, "seed": 7, "steps_run": 30}.items() <= new.provenance.items()
    assert "sha256:source" in image_names(new), "protocols must recognise the picture it was made from"


def test_the_first_picture_of_a_chain_is_kept() -> None:
    """Test photo -> mirrored -> repainted: the last must still be known for the first's."""
    said = Statement("cat", "left of", "dog", "positive", None, None)
    for first, kept in (("sha256:photo", "sha256:photo"), (None, "sha256:source"), ({"no": "id"}, "sha256:source")):
        job = replace(JOB, triplet=CAT.replace(provenance={SOURCE_IMAGE: first}))
        (row,) = Painted(job, b"\x89PNG...", 32, 24, (said,)).triplets()
        assert row.provenance[SOURCE_IMAGE] == kept and job.id == JOB.id


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [(("dog", "by", "fox"), True), (("dog", "by", "cat"), False), (("dog", "above", "fox"), False)],
)
def test_the_vocabulary_says_no_to_new_relations_and_held_out_pairs(
    statement: tuple[str, str, str], allowed: bool
) -> None:
    words = Vocabulary(("cat", "dog", "fox"), frozenset({"by"}), pairs=frozenset({("cat", "dog")}))
    assert words.allows(*statement) is allowed
