"""Detectors that run locally, through transformers' Auto classes, and known boxes in place of one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from vsre.errors import VsreError
from vsre.repaint.prompts import noun
from vsre.sources.vsr.objects import ImageObjects
from vsre.verify.config import ClosedSet, OpenVocabulary
from vsre.verify.loading import Looker, Machine, to_model
from vsre.verify.names import labels_of
from vsre.verify.sight import FLOOR, Detection, Picture, Seen, detections


class ClosedSetDetector(Looker[ClosedSet]):
    """A detector of fixed classes (RT-DETR, D-FINE, DETR ...): one pass over a picture finds them all."""

    name = "closed"
    auto = "AutoModelForObjectDetection"
    processor = "AutoImageProcessor"
    what = "an object detector"

    def __init__(self, spec: ClosedSet, machine: Machine, *, duplicates: float) -> None:
        super().__init__(spec, machine)
        self.duplicates = duplicates

    def knows(self, name: str) -> bool:
        return bool(self._labels(name))

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[Seen]:
        return self.machine.in_batches(list(zip(pictures, names, strict=True)), self._batch)

    def _labels(self, name: str) -> frozenset[str]:
        return labels_of(name, self._by_label, self.spec.names)

    @cached_property
    def _by_label(self) -> dict[str, frozenset[int]]:
        ids: defaultdict[str, set[int]] = defaultdict(set)
        for number, label in self.model.config.id2label.items():
            ids[label].add(int(number))
        return {label: frozenset(numbers) for label, numbers in ids.items()}

    def _batch(self, batch: Sequence[tuple[Picture, Sequence[str]]]) -> list[Seen]:
        import torch

        model, processor = self.model.load()
        images = [picture.shown for picture, _ in batch]
        inputs = to_model(processor(images=images, return_tensors="pt"), model)
        with torch.inference_mode():
            outputs = model(**inputs)
        return [
            {name: self._of(name, outputs, index, picture) for name in names} if clear else None
            for index, ((picture, names), clear) in enumerate(zip(batch, _clear(outputs), strict=True))
        ]

    def _of(self, name: str, outputs: Any, index: int, picture: Picture) -> tuple[Detection, ...]:
        """The boxes of one class in one picture of a batch."""
        _, processor = self.model.load()
        wanted = sorted(number for label in self._labels(name) for number in self._by_label[label])
        logits = outputs.logits[index : index + 1]
        if logits.shape[-1] == len(self.model.config.id2label):
            # Each class has its own score, with no background class. Drop the others: they would push this one out of
            # the best boxes that the processor keeps, and faint things would count as absent.
            logits, wanted = logits[..., wanted], list(range(len(wanted)))
        image = picture.shown
        [result] = processor.post_process_object_detection(
            SimpleNamespace(logits=logits, pred_boxes=outputs.pred_boxes[index : index + 1]),
            threshold=FLOOR,
            target_sizes=[(image.height, image.width)],
        )
        mine = [i for i, number in enumerate(result["labels"].tolist()) if number in wanted]
        boxes, scores = result["boxes"].float().cpu()[mine], result["scores"].float().cpu()[mine]
        return detections(boxes, scores, image.size, self.duplicates)


@dataclass(frozen=True)
class _Family:
    """How to ask a family of open-vocabulary models: its usual prompt, and how its processor pads texts."""

    prompt: str
    text: Mapping[str, Any] = field(default_factory=dict)


_FAMILIES: Mapping[str, _Family] = {
    # The processor pads texts to one length by default.
    "owlv2": _Family("a photo of {}"),
    # The processor turns this into "a cat.".
    "grounding-dino": _Family("{}", {"padding": True}),
    "mm-grounding-dino": _Family("{}", {"padding": True}),
}
"""transformers' model type -> family."""


class OpenVocabularyDetector(Looker[OpenVocabulary]):
    """A detector that is told the class (OWLv2, Grounding DINO): one pass over a picture per class, so that classes
    neither compete nor merge into one phrase."""

    name = "open"
    auto = "AutoModelForZeroShotObjectDetection"
    what = "an open-vocabulary detector"

    def __init__(self, spec: OpenVocabulary, machine: Machine, *, duplicates: float) -> None:
        super().__init__(spec, machine)
        self.duplicates = duplicates

    def knows(self, name: str) -> bool:
        return True

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[Seen]:
        asked = [(picture, name) for picture, mine in zip(pictures, names, strict=True) for name in mine]
        answers = iter(self.machine.in_batches(asked, self._batch))
        found: list[Seen] = []
        for mine in names:
            seen = {name: next(answers) for name in mine}
            clear = {name: boxes for name, boxes in seen.items() if boxes is not None}
            found.append(clear if len(clear) == len(seen) else None)
        return found

    def words(self, name: str) -> str:
        """The prompt for a class, such as "a photo of a cat"."""
        prompt = self.spec.prompt or self._family.prompt
        return prompt.replace("{}", noun(self.spec.say.get(name, name)))

    @property
    def _family(self) -> _Family:
        kind = self.model.config.model_type
        if kind not in _FAMILIES:
            raise VsreError(f"{self.spec.model}: {kind} models are not supported, only {', '.join(_FAMILIES)}.")
        return _FAMILIES[kind]

    def _batch(self, batch: Sequence[tuple[Picture, str]]) -> list[tuple[Detection, ...] | None]:
        import torch

        model, processor = self.model.load()
        images = [picture.shown for picture, _ in batch]
        texts = [[self.words(name)] for _, name in batch]
        inputs = processor(images=images, text=texts, truncation=True, return_tensors="pt", **self._family.text)
        inputs = to_model(inputs, model)
        with torch.inference_mode():
            outputs = model(**inputs)
        results = processor.post_process_grounded_object_detection(
            outputs, threshold=FLOOR, target_sizes=[(i.height, i.width) for i in images]
        )
        return [
            detections(result["boxes"].float().cpu(), result["scores"].float().cpu(), image.size, self.duplicates)
            if clear
            else None
            for image, result, clear in zip(images, results, _clear(outputs), strict=True)
        ]


class KnownBoxes:
    """Annotated boxes in place of a detector: how right the rules can be at best.

    `objects` maps each picture's file name to its objects (`vsre.sources.vsr.objects.read_objects`). A class that no
    picture has is unknown.
    """

    name = "annotations"

    def __init__(self, objects: Mapping[str, ImageObjects]) -> None:
        self.objects = objects
        self._classes = {name for image in objects.values() for name, _ in image.objects}
        told = sorted((name, image.objects) for name, image in objects.items())
        self._digest = hashlib.sha256(repr(told).encode()).hexdigest()[:12]

    def identity(self) -> dict[str, Any]:
        return {"annotations": self._digest}

    def about(self) -> dict[str, Any]:
        return {"model": "annotated boxes", "pictures": len(self.objects), **self.identity()}

    def knows(self, name: str) -> bool:
        return name in self._classes

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[Seen]:
        return [self._of(picture.name, mine) for picture, mine in zip(pictures, names, strict=True)]

    def _of(self, picture: str, names: Sequence[str]) -> Seen:
        image = self.objects.get(picture)
        if image is None:
            return None
        return {
            name: tuple(Detection(box, 1.0) for found, box in image.objects if found == name and box is not None)
            for name in names
        }


def _clear(outputs: Any) -> list[bool]:
    """Whether the model gave numbers for each picture; a half-precision overflow must not count as nothing seen."""
    import torch

    unclear = torch.isnan(outputs.logits) | torch.isnan(outputs.pred_boxes).any(-1, keepdim=True)
    return [not picture for picture in unclear.flatten(1).any(1).tolist()]
