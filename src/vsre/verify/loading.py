"""Loading the models that look at pictures: only safetensors, no code from checkpoints, processors that need no
torchvision.

Loaded models are left out when a part is pickled: worker processes load their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from vsre.errors import VsreError, first_line
from vsre.model.checkpoints import resolve_checkpoint
from vsre.verify.config import Part, VerifierConfig

Item = TypeVar("Item")
Found = TypeVar("Found")
Spec = TypeVar("Spec", bound=Part)


@dataclass
class Machine:
    """Where and how models run. `batch_size` is halved for good if a GPU's memory is too small for it."""

    device: str
    dtype: str
    batch_size: int
    offline: bool

    @classmethod
    def of(cls, config: VerifierConfig) -> Machine:
        return cls(config.device, config.dtype, config.batch_size, config.offline)

    def in_batches(self, items: Sequence[Item], call: Callable[[Sequence[Item]], Sequence[Found]]) -> list[Found]:
        """Apply `call` to all items, at most `batch_size` at a time; one result per item."""
        import torch

        found: list[Found] = []
        while len(found) < len(items):
            try:
                found += call(items[len(found) : len(found) + self.batch_size])
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                torch.cuda.empty_cache()
        return found


class Model:
    """A part's model and processor, loaded when first needed.

    `auto` and `processor` name transformers' Auto classes; `what` says in messages what the model should be. Raises
    VsreError at once if a folder or `zoo:` model does not exist.
    """

    def __init__(self, part: Part, machine: Machine, *, auto: str, processor: str, what: str) -> None:
        self.part, self.machine = part, machine
        self._auto, self._processor, self._what = auto, processor, what
        self.path = resolve_checkpoint(part.model)
        if Path(self.path).is_dir():
            if part.revision is not None:
                raise VsreError(f"{part.model}: a folder has no revisions. Leave revision {part.revision!r} out.")
            if not any(Path(self.path).glob("*.safetensors")):
                raise VsreError(f"{part.model}: no safetensors weights here. Other formats can run code when opened.")
        self._loaded: tuple[Any, Any] | None = None
        self._config: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def release(self) -> None:
        """Drop the weights if they are loaded; the next look loads them again."""
        self._loaded = None

    @property
    def config(self) -> Any:
        """The model's configuration, without reading weights. Raises VsreError if there is none."""
        if self._config is None:
            import transformers

            self._config = self._from(transformers.AutoConfig)
        return self._config

    def load(self) -> tuple[Any, Any]:
        """(model in evaluation mode, processor). Raises VsreError if they cannot be loaded."""
        if self._loaded is None:
            import torch
            import transformers

            from vsre.diagnose.devices import choose_device

            place = choose_device(self.machine.device)
            transformers.utils.logging.disable_progress_bar()
            processor = self._from(getattr(transformers, self._processor), backend="pil")
            model, found = self._from(
                getattr(transformers, self._auto),
                dtype=getattr(torch, self.machine.dtype),
                use_safetensors=True,
                output_loading_info=True,
            )
            if missing := sorted(found["missing_keys"]):
                raise VsreError(
                    f"{self.part.model}: the checkpoint lacks {len(missing)} of the model's weights "
                    f"({', '.join(missing[:3])}), which would be left random."
                )
            self._loaded = model.to(place).eval(), processor
        return self._loaded

    def identity(self) -> dict[str, Any]:
        """What identifies the weights before they are loaded: a hub id with the revision asked for, or a folder's
        fingerprint, without its name."""
        if Path(self.path).is_dir():
            return {"files": fingerprint(self.path)}
        return {"model": self.part.model, "revision": self.part.revision or "main"}

    def about(self) -> dict[str, Any]:
        """The same for people, with the commit that was loaded."""
        commit = getattr(self._config, "_commit_hash", None)
        return {"model": self.part.model, **self.identity(), **({"revision": commit} if commit else {})}

    def _from(self, auto: Any, **more: Any) -> Any:
        try:
            return auto.from_pretrained(
                self.path,
                revision=self.part.revision or "main",
                trust_remote_code=False,
                local_files_only=self.machine.offline,
                **more,
            )
        # A broken folder or an unreachable hub can fail anywhere in the library; report the reason in one line.
        except Exception as error:
            raise VsreError(
                f"{self.part.model}: cannot be loaded as {self._what} ({first_line(error)}). Expected a hub id or a "
                "folder with config.json, model.safetensors and preprocessor_config.json, as save_pretrained writes "
                "them, of a model whose processor works without torchvision."
            ) from error


class Looker(Generic[Spec]):
    """A part that looks at pictures with one model; subclasses name transformers' Auto classes and say in `what` what
    the model should be."""

    auto: ClassVar[str]
    processor: ClassVar[str] = "AutoProcessor"
    what: ClassVar[str]

    def __init__(self, spec: Spec, machine: Machine) -> None:
        self.spec, self.machine = spec, machine
        self.model = Model(spec, machine, auto=self.auto, processor=self.processor, what=self.what)

    def identity(self) -> dict[str, Any]:
        return self.model.identity()

    def about(self) -> dict[str, Any]:
        return self.model.about()

    def release(self) -> None:
        self.model.release()


@cache
def fingerprint(folder: str) -> str:
    """SHA-256 over a model folder's files, independent of the folder's name."""
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(folder).iterdir() if p.suffix in {".json", ".txt", ".safetensors"}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return "sha256:" + digest.hexdigest()[:24]


def to_model(inputs: Any, model: Any) -> Any:
    """A processor's tensors on the model's device, floating-point ones in its dtype."""
    return inputs.to(model.device, model.dtype)
