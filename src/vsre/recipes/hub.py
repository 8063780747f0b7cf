"""Looking up a recipe's checkpoints before any weight is read: whether they exist, their configs and chat templates.

A checkpoint is a folder, `zoo:NAME` or a hub id. For a hub id the hub is queried if it can be reached; else only what
the local cache or the package (shapes.yaml) has is known, and the result says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import HfApi, try_to_load_from_cache
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

from vsre.errors import VsreError, first_line
from vsre.model import ENCODERS, zoo_names
from vsre.model.checkpoints import ZOO_PREFIX, locate
from vsre.model.reference import VISION
from vsre.recipes.near import nearest

TIMEOUT = 10.0
"""Seconds to wait for the hub."""

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json")

Source = Literal["folder", "hub", "cache", "package"]


class OutOfReach(VsreError):
    """Something cannot be determined about a checkpoint that may well be valid."""


@dataclass(frozen=True)
class Found:
    """What is known about a checkpoint: its config, where that is from, and a note if the id itself was not checked."""

    config: PreTrainedConfig | None
    source: Source | None
    note: str = ""


@cache
def shapes() -> dict[str, Any]:
    """Return the hub models whose shapes the package knows."""
    known: dict[str, Any] = yaml.safe_load(resources.files("vsre.recipes").joinpath("shapes.yaml").read_text())
    return known


class Checkpoints:
    """Looks checkpoints up, each once. `online`: the hub may be queried."""

    def __init__(self, *, online: bool) -> None:
        self.online = online
        self._found: dict[str, Found] = {}
        self._unreachable = ""

    def find(self, name: str) -> Found:
        """Look a checkpoint up. Raises VsreError if it does not exist, suggesting the nearest name."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def known(self, name: str) -> Source | None:
        """Return where its config is from; None if nothing is known about it or it does not exist."""
        try:
            return self.find(name).source
        except VsreError:
            return None

    def config(self, name: str) -> PreTrainedConfig:
        """Return its config. Raises OutOfReach if nothing is known about it."""
        config = self.find(name).config
        if config is None:
            raise OutOfReach(f"{name}: its config is neither here nor in reach, so nothing can be estimated for it.")
        return config

    def template(self, name: str) -> str | None:
        """Return the chat template; empty if there is none, None if its files are out of reach."""
        path, more = locate(name)
        if more:  # a GGUF file contains its own, if any
            return None
        if Path(path).is_dir():
            return next((t for t in map(_template, (Path(path) / f for f in TEMPLATE_FILES)) if t), "")
        found, reached = "", False
        for file in TEMPLATE_FILES:
            local = self._file(path, file)
            reached = reached or local is not None
            found = found or (_template(local) if local else "")
        return found if found or reached else None

    def _find(self, name: str) -> Found:
        if name.startswith(ZOO_PREFIX) and name.removeprefix(ZOO_PREFIX) not in zoo_names():
            raise VsreError(f"{name}: no such model in the zoo. {nearest(name, [ZOO_PREFIX + n for n in zoo_names()])}")
        path, more = locate(name)
        if Path(path).is_dir():
            return Found(_config(name, path, **more), "folder")
        note = self._ask_hub(path)
        there: Source = "cache" if note else "hub"
        if more:  # a GGUF file is large: it is not fetched just to be read
            cached = isinstance(try_to_load_from_cache(path, more["gguf_file"]), str)
            config = _config(name, path, local_files_only=True, **more) if cached else None
            return Found(config, there if cached or not note else None, note)
        local = self._file(path, "config.json")
        if local is not None:
            return Found(_config(name, str(local)), there, note)
        packaged = _packaged(name)
        return Found(packaged, None if packaged is None else "package", note)

    def _ask_hub(self, name: str) -> str:
        """Return "" if the hub has this model, else why that was not checked. Raises VsreError if it lacks it."""
        from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

        if not self.online or self._unreachable:
            return f"not checked on the hub ({self._unreachable or 'offline'})"
        known = [*shapes(), *(spec.checkpoint for spec in ENCODERS.values())]
        try:
            HfApi().model_info(name, timeout=TIMEOUT)
        except GatedRepoError as error:
            raise VsreError(
                f"{name}: the hub gives it only to those who accepted its licence. Accept it on the model's page and "
                "log in (hf auth login)."
            ) from error
        except RepositoryNotFoundError as error:
            raise VsreError(f"{name}: the hub has no such model, or it is private. {nearest(name, known)}") from error
        except HFValidationError as error:
            raise VsreError(f"{name}: not a folder or hub id ({first_line(error)}). {nearest(name, known)}") from error
        except Exception as error:  # any network error: not the recipe's fault
            self._unreachable = f"it cannot be reached ({type(error).__name__})"
            return f"not checked on the hub ({self._unreachable})"
        return ""

    def _file(self, name: str, file: str) -> Path | None:
        """Return a small file of a hub model, fetched if the hub may be queried, else from the cache."""
        try:
            found = cached_file(
                name,
                file,
                local_files_only=not self.online or bool(self._unreachable),
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                _raise_exceptions_for_gated_repo=False,
            )
        except OSError:
            return None
        return Path(found) if found else None


def _config(name: str, path: str, **more: Any) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False, **more)
    except (OSError, ValueError, KeyError) as error:
        raise VsreError(f"{name}: its config cannot be read ({first_line(error)}).") from error


def _packaged(name: str) -> PreTrainedConfig | None:
    """Return the config of a hub model whose shape the package knows, else None."""
    if name in shapes():
        return AutoConfig.for_model(**shapes()[name]["config"])
    return next((VISION[word] for word, spec in ENCODERS.items() if spec.checkpoint == name), None)


def _template(file: Path) -> str:
    """Return the chat template that one of TEMPLATE_FILES holds, or ""."""
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jinja":
        return text
    try:
        found = json.loads(text).get("chat_template") or ""
    except (ValueError, AttributeError):
        return ""
    # Several templates by name, as some tokenizers have them.
    return found if isinstance(found, str) else json.dumps(found)
