"""Pictures, detectors and judges whose answers are known."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply
from vsre.relations.grammar import caption
from vsre.triplets import Box, Triplet, image_content_id
from vsre.verify.sight import Detection, Picture, Seen

LEFT, RIGHT, MIDDLE = (0.1, 0.4, 0.3, 0.6), (0.7, 0.4, 0.9, 0.6), (0.4, 0.4, 0.6, 0.6)


def png(name: str, size: tuple[int, int] = (60, 40)) -> bytes:
    """A picture of its own for each name."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (len(name) * 7 % 256, sum(name.encode()) % 256, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def triplet(
    name: str, subject: str = "cat", relation: str = "left of", object: str = "dog", *, label: bool = True, **more: Any
) -> Triplet:
    image = png(name)
    said = caption(subject, relation, object)
    values = {"image": image, "image_id": image_content_id(image), **more}
    return Triplet(
        image_name=f"{name}.png", subject=subject, relation=relation, object=object, caption=said, label=label,
        split="test", origin="vsr", **values,
    )  # fmt: skip


class Fake:
    """Sees what it was told: picture -> class -> [(box, score)]; a picture that is None gives no numbers."""

    def __init__(
        self,
        seen: Mapping[str, Mapping[str, Sequence[tuple[Box, float]]] | None],
        *,
        name: str = "closed",
        knows: Sequence[str] = ("cat", "dog"),
    ) -> None:
        self.name, self.seen, self.known = name, seen, knows
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def knows(self, name: str) -> bool:
        return name in self.known

    def identity(self) -> dict[str, Any]:
        return {"fake": self.name}

    def about(self) -> dict[str, Any]:
        return {"model": f"fake/{self.name}", "revision": "abc"}

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[Seen]:
        found: list[Seen] = []
        for picture, wanted in zip(pictures, names, strict=True):
            key = picture.name.removesuffix(".png")
            self.asked.append((key, tuple(wanted)))
            there = self.seen.get(key, {})
            boxes = None if there is None else {n: tuple(Detection(*d) for d in there.get(n, ())) for n in wanted}
            found.append(boxes)
        return found


class Says:
    """An engine that answers by a function of the prompt."""

    name, batch_images = "says/1", 4

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.by, self.asked = answer, []

    def settings(self) -> dict[str, Any]:
        return {}

    def notes(self) -> dict[str, Any]:
        return {}

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        self.asked += [(image, [p.text for p in prompts]) for image, prompts in asked]
        told = [[self.by(p.text) for p in prompts] for _, prompts in asked]
        return [[Reply(text) if text is not None else Reply(error="out of memory") for text in some] for some in told]


def knowing(truth: bool) -> Callable[[str], str]:
    """Who looks at the statement, whichever way it is said."""

    def answer(prompt: str) -> str:
        holds = truth is not ("is not" in prompt)
        return ("True" if holds else "False") if "True or false" in prompt else ("Yes" if holds else "No")

    return answer
