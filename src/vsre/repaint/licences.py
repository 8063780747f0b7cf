"""The licence of a source picture: from its triplet's provenance, else from COCO's instance files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.sources.vsr.jsonstream import open_text, stream_arrays
from vsre.triplets import Triplet

_KEYS = ("source_licence", "licence", "license")


def licence_of(triplet: Triplet, by_name: Mapping[str, str]) -> str | None:
    """The licence of the triplet's picture, None if unknown. A repainted picture's `licence` is its model's, so
    `source_licence` comes first."""
    for key in _KEYS:
        found = triplet.provenance.get(key)
        if isinstance(found, str) and found:
            return found
    return by_name.get(triplet.image_name)


def coco_licences(files: Sequence[Path]) -> dict[str, str]:
    """Picture file name -> licence, from COCO instance (or caption) files, each read once, streaming. Files that name
    no licences give none. Raises VsreError for a file that is missing or not a JSON object."""
    found: dict[str, str] = {}
    for path in files:
        if not path.is_file():
            raise VsreError(f"{path}: no such file.")
        names: dict[Any, str] = {}
        numbers: dict[str, Any] = {}
        try:
            with open_text(path) as file:
                for section, entry in stream_arrays(file, str(path), ("licenses", "images")):
                    if section == "licenses":
                        names[entry["id"]] = str(entry.get("name") or entry["url"])
                    elif "license" in entry:
                        numbers[str(entry["file_name"])] = entry["license"]
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise VsreError(f"{path}: an entry of `licenses` or `images` is not as in COCO: {error!r}.") from error
        for picture, number in numbers.items():
            if number in names:
                found.setdefault(picture, names[number])
    return found
