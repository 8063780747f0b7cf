"""Verify a set of triplets into a folder; the run can be killed and resumed at any moment.

OUT/verify.json        who looked, with which settings, and the figures (`vsre.verify.figures`) once all is verified
OUT/verdicts.parquet   one row per triplet (`vsre.verify.verdicts`); until it is complete, rows are in OUT/parts
OUT/locks/             an empty file that the running process holds: a second process is refused
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import vsre
from vsre.diagnose.run_folder import versions, write_json
from vsre.diagnose.samples import write_part
from vsre.errors import VsreError
from vsre.files import locked
from vsre.repaint.verify import BatchVerifier, Verifier, verify_all
from vsre.triplets import Triplet, read_triplets
from vsre.verify.figures import COLUMNS, figures
from vsre.verify.verdicts import SCHEMA, join_parts, parts, read_verdicts, to_row

_PICTURES = 64
"""Number of pictures looked at between two looks at the clock, at least."""


def verify_set(
    triplets_path: Path | str,
    out: Path | str,
    verifier: Verifier,
    *,
    limit: int | None = None,
    flush_seconds: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Verify every triplet of a set that has no verdict in OUT yet; returns (and writes to verify.json) the figures.

    `limit`: only the first so many triplets. Verdicts are written every `flush_seconds`, so a kill loses no more than
    that, and nothing that was written is looked at again. `progress(done, total)` counts triplets. Raises VsreError if
    the set is empty, if OUT lies in the set's own folder, if it holds another verifier's verdicts or damaged ones, and
    if another process is verifying into it.
    """
    path, out = Path(triplets_path), Path(out)
    folder = (path.parent if path.is_file() else path).resolve()
    if folder in (out.resolve(), *out.resolve().parents):
        raise VsreError(f"{out}: lies in the triplets' folder, where verdicts would be read as triplets. Name another.")
    keys = dict.fromkeys(t.key for t in _first(read_triplets(path, images=False), limit))
    if not keys:
        raise VsreError(f"{path}: no triplets to verify.")
    with locked(out, "verify", wait=False) as lock:
        if lock == "elsewhere":
            raise VsreError(f"{out}: another process verifies into this folder. Wait for it, or choose another --out.")
        return _verify(path, out, verifier, keys, limit, flush_seconds, progress)


def _verify(
    path: Path,
    out: Path,
    verifier: Verifier,
    keys: Mapping[str, None],
    limit: int | None,
    flush_seconds: float,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """`verify_set` for the triplets with these keys, with the lock held."""
    record = _open(out, verifier)
    left = keys.keys() - {row["key"] for row in read_verdicts(out, ["key"])}
    if progress:
        progress(len(keys) - len(left), len(keys))
    rows: list[dict[str, Any]] = []
    written, looked = time.monotonic(), len(keys) - len(left)
    size = max(_PICTURES, verifier.batch_size if isinstance(verifier, BatchVerifier) else 1)
    try:
        for some in _batches(_new(_first(read_triplets(path), limit), left), size) if left else ():
            found = verify_all(verifier, some)
            rows += [to_row(triplet, verification) for triplet, verification in zip(some, found, strict=True)]
            looked += len(some)
            if progress:
                progress(looked, len(keys))
            if time.monotonic() - written >= flush_seconds:
                write_part(parts(out), rows, SCHEMA)
                rows, written = [], time.monotonic()
    finally:  # nothing is lost if a judge's server goes away or a person stops the run
        if rows:
            write_part(parts(out), rows, SCHEMA)
    join_parts(out)
    ours = (row for row in read_verdicts(out, ["key", *COLUMNS]) if row["key"] in keys)
    summary = record | {"by": _about(verifier), "source": str(path), "figures": figures(ours), "finished": True}
    write_json(out / "verify.json", summary)
    return summary


def _open(out: Path, verifier: Verifier) -> dict[str, Any]:
    """Start or resume the folder's record."""
    path = out / "verify.json"
    record = {"vsre": vsre.__version__, "verifier": verifier.name, "versions": versions()}
    if path.is_file():
        try:
            earlier = json.loads(path.read_text("utf-8"))["verifier"]
        except (ValueError, KeyError, TypeError) as error:
            raise VsreError(f"{path}: not the record of a verification ({error}). Use another folder.") from error
        if earlier != verifier.name:
            raise VsreError(
                f"{out}: holds verdicts of {earlier!r}, but this verifier is {verifier.name!r}: its model, "
                "threshold or rules differ. Use another folder."
            )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, record | {"by": _about(verifier), "finished": False})
    return record


def _about(verifier: Verifier) -> dict[str, Any]:
    about: dict[str, Any] = getattr(verifier, "about", dict)()
    return about


def _first(triplets: Iterator[Triplet], limit: int | None) -> Iterator[Triplet]:
    for number, triplet in enumerate(triplets):
        if number == limit:
            return
        yield triplet


def _new(triplets: Iterator[Triplet], left: set[str]) -> Iterator[Triplet]:
    """Each triplet without a verdict, once."""
    for triplet in triplets:
        if triplet.key in left:
            left.discard(triplet.key)
            yield triplet


def _batches(triplets: Iterator[Triplet], pictures: int) -> Iterator[Sequence[Triplet]]:
    """Consecutive triplets, in batches of about `pictures` pictures."""
    some: list[Triplet] = []
    held = 0
    for _, of_picture in groupby(triplets, key=lambda t: t.image_id):
        some += of_picture
        held += 1
        if held == pictures:
            yield some
            some, held = [], 0
    if some:
        yield some
