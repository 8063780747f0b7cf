"""The body of a chat completion request: the picture, the question, and the options in a server's dialect."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from PIL import Image

from vsre.diagnose.decoding import Decoding
from vsre.diagnose.prompts import Prompt
from vsre.errors import VsreError
from vsre.sources.images import load_image

ImageFormat = Literal["png", "jpeg"]

_OURS = {
    "model", "messages", "temperature", "max_tokens", "max_completion_tokens", "seed", "logprobs", "top_logprobs",
    "stream", "n",
}  # fmt: skip
_SECRET = re.compile(r"api_?key|authorization|password|secret|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How a server wants to be asked, as far as servers differ: learned from what it refuses.

    `top`: how many tokens of the first position to request with their log P, 0 for none.
    """

    limit: str = "max_tokens"
    seed: bool = True
    top: int = 20
    lost: str | None = field(default=None, compare=False)

    def plainer(self, said: str) -> Dialect | None:
        """The dialect to try after a request was refused with these words; None if they blame nothing of ours."""
        if self.limit == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, limit="max_completion_tokens")
        if self.top and re.search("log_?prob", said, re.IGNORECASE):
            return replace(self, top=5 if self.top > 5 else 0, lost=said)
        if self.seed and re.search(r"\bseed\b", said, re.IGNORECASE):
            return replace(self, seed=False)
        return None

    def and_(self, other: Dialect) -> Dialect:
        """The dialect that satisfies both."""
        fewer = min(self, other, key=lambda d: d.top)
        limit = next((d.limit for d in (self, other) if d.limit != "max_tokens"), "max_tokens")
        return replace(fewer, limit=limit, seed=self.seed and other.seed)


@dataclass(frozen=True)
class Asking:
    """What all requests of a run have in common. `temperature` or `seed` None: the server's own."""

    model: str
    decoding: Decoding
    temperature: float | None
    seed: int | None
    pictures: bool
    image_format: ImageFormat
    max_image_side: int | None
    image_detail: str | None
    extra: Mapping[str, Any]

    def __post_init__(self) -> None:
        if ours := sorted(_OURS & set(self.extra)):
            raise VsreError(f"body: {', '.join(ours)} cannot be set here, vsre sets them itself.")
        if secret := next((name for name in _names(self.extra) if _SECRET.search(name)), None):
            raise VsreError(f"body: {secret} looks like a secret, and the body is in every record. For keys: key_env.")
        if self.image_format not in ("png", "jpeg"):
            raise VsreError(f"image_format {self.image_format!r}: expected png or jpeg.")
        if self.max_image_side is not None and self.max_image_side < 1:
            raise VsreError(f"max_image_side {self.max_image_side}: expected at least 1 pixel.")

    def settings(self) -> dict[str, Any]:
        return {
            "image": {
                "sent": self.pictures,
                "format": self.image_format,
                "max_side": self.max_image_side,
                "detail": self.image_detail,
            },
            "body": dict(self.extra),
        }

    def body(self, prompt: Prompt, picture: str | None, dialect: Dialect) -> dict[str, Any]:
        """The request, its picture (a data URL) before its text."""
        content: list[dict[str, Any]] = []
        if picture is not None:
            detail = {} if self.image_detail is None else {"detail": self.image_detail}
            content.append({"type": "image_url", "image_url": {"url": picture, **detail}})
        content.append({"type": "text", "text": prompt.text})
        found: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": content}]}
        found[dialect.limit] = max(1, self.decoding.limit(prompt.style))
        if self.temperature is not None:
            found["temperature"] = self.temperature
        if self.seed is not None and dialect.seed:
            found["seed"] = self.seed
        if prompt.options and dialect.top:
            found |= {"logprobs": True, "top_logprobs": dialect.top}
        return {**found, **self.extra}

    def picture(self, data: bytes | None) -> str | None:
        """A data URL of the picture as `load_image` opens it, re-encoded: no bytes from outside are passed on. Raises
        VsreError if it is missing or not a picture."""
        if not self.pictures:
            return None
        if data is None:
            raise VsreError("the triplet file holds no picture for this row")
        image = load_image(data)
        if self.max_image_side is not None and max(image.size) > self.max_image_side:
            scale = self.max_image_side / max(image.size)
            width, height = (max(1, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return _data_url(image, self.image_format)

    def canary(self) -> tuple[Prompt, str | None]:
        """A question of our own that any server for pictures can answer, to tell a bad prompt from a bad server."""
        grey = _data_url(Image.new("RGB", (224, 224), (127, 127, 127)), self.image_format) if self.pictures else None
        return Prompt("Is grey a colour? Answer yes or no."), grey


def _data_url(image: Image.Image, image_format: ImageFormat) -> str:
    image.info.clear()  # comments and colour profiles would be written back
    buffer = io.BytesIO()
    if image_format == "jpeg":
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _names(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _names(inner)
