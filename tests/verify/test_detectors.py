import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_lookers import Scripted

from vsre.errors import VsreError
from vsre.sources.vsr.objects import ImageObjects
from vsre.verify.config import ClosedSet, OpenVocabulary
from vsre.verify.detectors import ClosedSetDetector, KnownBoxes, OpenVocabularyDetector
from vsre.verify.loading import Machine
from vsre.verify.sight import FLOOR, Picture


def machine(batch_size: int = 4, dtype: str = "float32") -> Machine:
    return Machine("cpu", dtype, batch_size, offline=True)


def closed(folder: Path, *, batch_size: int = 4, dtype: str = "float32", **more: object) -> ClosedSetDetector:
    spec = ClosedSet(model=str(folder), present=0.5, absent=0.3, **more)
    return ClosedSetDetector(spec, machine(batch_size, dtype), duplicates=0.7)


def opened(folder: Path, *, batch_size: int = 4, **more: object) -> OpenVocabularyDetector:
    spec = OpenVocabulary(model=str(folder), present=0.3, absent=0.1, **more)
    return OpenVocabularyDetector(spec, machine(batch_size), duplicates=0.7)


def pictures() -> list[Picture]:
    noise = np.random.default_rng(0)
    sizes = [(60, 40), (8, 8), (24, 90), (60, 40), (33, 47)]
    made = [Image.fromarray(noise.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    return [Picture(f"{i}.jpg", image) for i, image in enumerate(made)]


@pytest.mark.parametrize("kind", ["rt", "dfine", "owl", "dino", "mm"])
def test_real_classes_look_at_pictures_of_any_shape(lookers: dict[str, Path], kind: str) -> None:
    """Boxes are fractions inside the picture, the surest first, and the same one by one as in batches."""
    make = closed if kind in ("rt", "dfine") else opened
    shown = pictures()
    names = [["cat", "couch"], ["couch"], ["cat"], [], ["couch", "cat"]]
    together = make(lookers[kind]).detect(shown, names)
    alone = make(lookers[kind], batch_size=1).detect(shown, names)
    some = 0
    for seen, one, wanted in zip(together, alone, names, strict=True):
        assert seen is not None and one is not None
        assert list(seen) == list(one) == wanted
        for name in wanted:
            some += len(seen[name])
            scores = [d.score for d in seen[name]]
            assert scores == sorted(scores, reverse=True) and all(s >= FLOOR for s in scores)
            assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in (d.box for d in seen[name]))
    assert some > 0
    if kind != "dino" and kind != "mm":  # those pad pictures of one batch to one size, which random weights notice
        best = [[seen[n][0].score for n in seen if seen[n]] for seen in together]
        assert best == [[pytest.approx(one[n][0].score, abs=1e-4) for n in one if one[n]] for one in alone]


def test_labels_are_read_as_classes(lookers: dict[str, Path]) -> None:
    """The model says sofa and tvmonitor; VSR says couch and tv."""
    detector = closed(lookers["rt"], names={"kitten": ("cat",)})
    known = {name: detector.knows(name) for name in ("cat", "couch", "sofa", "tv", "television", "kitten", "dog")}
    assert known == {
        "cat": True,
        "couch": True,
        "sofa": True,
        "tv": True,
        "television": True,
        "kitten": True,
        "dog": False,
    }
    logits = torch.tensor([[[-9.0, 2.0, -9.0], [3.0, -9.0, -9.0], [-9.0, -9.0, 1.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], [0.9, 0.9, 0.4, 0.4]]])
    model = Scripted(logits, boxes)
    detector.model._loaded = model, detector.model.load()[1]
    [seen] = detector.detect(pictures()[:1], [["cat", "couch", "tv"]])
    assert seen is not None
    assert {name: (found[0].box, round(found[0].score, 3)) for name, found in seen.items()} == {
        "cat": (pytest.approx((0.0, 0.0, 0.5, 0.5), abs=1e-6), 0.953),
        "couch": (pytest.approx((0.25, 0.25, 0.75, 0.75), abs=1e-6), 0.881),
        "tv": (pytest.approx((0.7, 0.7, 1.0, 1.0), abs=1e-6), 0.731),  # clipped: it reached to 1.1
    }
    assert model.calls == [1]


def test_a_faint_thing_is_seen_beside_many_sure_ones(lookers: dict[str, Path]) -> None:
    """The processor keeps as many scores as there are queries: those of other classes must not crowd one out."""
    detector = closed(lookers["rt"])
    logits = torch.full((1, 3, 3), 4.0)
    logits[0, :, 0] = torch.tensor([-9.0, -1.0, -9.0])
    detector.model._loaded = Scripted(logits, torch.tensor([[[0.5, 0.5, 0.5, 0.5]] * 3])), detector.model.load()[1]
    [seen] = detector.detect(pictures()[:1], [["cat", "tv"]])
    assert seen is not None and [round(d.score, 3) for d in seen["cat"]] == [0.269]
    assert [round(d.score, 3) for d in seen["tv"]] == [0.982], "three queries on one thing are one box"


def test_a_class_that_stands_for_nothing_is_none(lookers: dict[str, Path]) -> None:
    """DETR has one column more: a softmax with "nothing", and one class a query."""
    from transformers import DetrImageProcessorPil

    detector = closed(lookers["rt"])
    logits = torch.tensor([[[5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]]])
    model = Scripted(logits, torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]]]))
    detector.model._loaded = model, DetrImageProcessorPil(size={"height": 64, "width": 64})
    [seen] = detector.detect(pictures()[:1], [["cat", "tv"]])
    assert seen is not None and [round(d.score, 3) for d in seen["cat"]] == [0.98] and seen["tv"] == ()


def test_owlv2_boxes_are_those_of_the_padded_square(lookers: dict[str, Path]) -> None:
    """A picture twice as wide as high fills the upper half of what the model sees."""
    detector = opened(lookers["owl"])
    model = Scripted(torch.full((1, 1, 1), 2.0), torch.tensor([[[0.75, 0.25, 0.5, 0.5]]]))
    detector.model._loaded = model, detector.model.load()[1]
    wide, high = Picture("w", Image.new("RGB", (64, 32))), Picture("h", Image.new("RGB", (32, 64)))
    one, other = detector.detect([wide, high], [["cat"], ["cat"]])
    assert one is not None and one["cat"][0].box == pytest.approx((0.5, 0.0, 1.0, 1.0))
    assert other == {"cat": ()}, "it lies right of a picture that is half as wide as the square"


def test_each_class_is_asked_alone(lookers: dict[str, Path]) -> None:
    """One pass for each picture and class, so that the classes cannot melt into one phrase."""
    for kind in ("owl", "dino", "mm"):
        detector = opened(lookers[kind], batch_size=2)
        both = detector.detect(pictures()[:1], [["cat", "dog"]])[0]
        alone = detector.detect(pictures()[:1], [["dog"]])[0]
        assert both is not None and alone is not None
        assert [d.score for d in both["dog"]] == pytest.approx([d.score for d in alone["dog"]], abs=1e-4)
        assert [d.score for d in both["dog"]] != pytest.approx([d.score for d in both["cat"]], abs=1e-4)


def test_what_is_asked_for(lookers: dict[str, Path]) -> None:
    assert opened(lookers["owl"]).words("umbrella") == "a photo of an umbrella"
    assert opened(lookers["dino"]).words("cat") == "a cat"
    assert opened(lookers["owl"], say={"mouse": "computer mouse"}).words("mouse") == "a photo of a computer mouse"
    assert opened(lookers["owl"], prompt="itap of {}.").words("skis") == "itap of a pair of skis."


def test_no_numbers_are_not_nothing_seen(lookers: dict[str, Path]) -> None:
    detector = closed(lookers["rt"])
    logits = torch.full((2, 3, 3), -9.0)
    logits[1, 2, 0] = torch.nan
    model = Scripted(logits, torch.full((2, 3, 4), 0.5))
    model.forward = lambda **inputs: type("Out", (), {"logits": logits, "pred_boxes": torch.full((2, 3, 4), 0.5)})()
    detector.model._loaded = model, detector.model.load()[1]
    assert detector.detect(pictures()[:2], [["cat"], ["cat"]]) == [{"cat": ()}, None]


def test_too_small_a_gpu_halves_the_batch() -> None:
    asked: list[int] = []

    def call(items: list[int]) -> list[int]:
        asked.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("no memory left")
        return [i * i for i in items]

    used = machine(8)
    assert used.in_batches(list(range(9)), call) == [i * i for i in range(9)]
    assert asked == [8, 4, 2, 2, 2, 2, 1] and used.batch_size == 2


def test_a_pickled_detector_leaves_its_model_behind(lookers: dict[str, Path]) -> None:
    detector = closed(lookers["rt"])
    before = detector.detect(pictures()[:1], [["cat"]])
    packed = pickle.dumps(detector)
    assert len(packed) < 20_000
    again = pickle.loads(packed)
    assert again.model._loaded is None and again.detect(pictures()[:1], [["cat"]]) == before


def test_half_precision(lookers: dict[str, Path]) -> None:
    seen = closed(lookers["rt"], dtype="bfloat16").detect(pictures()[:1], [["cat"]])[0]
    assert seen is not None and all(isinstance(d.score, float) for d in seen["cat"])


def test_weights_that_are_not_safetensors_are_refused(lookers: dict[str, Path], tmp_path: Path) -> None:
    for file in lookers["rt"].glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(VsreError, match="no safetensors weights"):
        closed(tmp_path)


def test_another_kind_of_model_is_refused(lookers: dict[str, Path]) -> None:
    with pytest.raises(VsreError, match="cannot be loaded as an object detector"):
        closed(lookers["sam"]).detect(pictures()[:1], [["cat"]])
    with pytest.raises(VsreError, match=r"rt_detr_v2 models are not supported, only owlv2"):
        opened(lookers["rt"]).words("cat")
    with pytest.raises(VsreError, match="no such model in the zoo"):
        closed(Path("zoo:nothing"))
    with pytest.raises(VsreError, match="a folder has no revisions"):
        closed(lookers["rt"], revision="main")


def test_missing_weights_are_refused(lookers: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in lookers["rt"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if "encoder" in name))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VsreError, match="lacks 1 of the model's weights"):
        closed(tmp_path).detect(pictures()[:1], [["cat"]])


def test_known_boxes_stand_for_a_detector() -> None:
    cat, cut = (0.1, 0.1, 0.5, 0.5), None
    known = KnownBoxes({"0.jpg": ImageObjects(60, 40, [("cat", cat), ("dog", cut), ("cat", (0.6, 0.6, 0.9, 0.9))])})
    assert known.knows("cat") and not known.knows("sheep")
    seen, none = known.detect(pictures()[:2], [["cat", "dog"], ["cat"]])
    assert none is None, "nobody annotated that picture"
    assert seen is not None and [d.box for d in seen["cat"]] == [cat, (0.6, 0.6, 0.9, 0.9)] and seen["dog"] == ()
    assert known.identity() != KnownBoxes({"0.jpg": ImageObjects(60, 40, [("cat", cat)])}).identity()
