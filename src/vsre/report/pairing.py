"""Pairing two run folders question by question; what cannot be paired is counted and explained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import vsre
from vsre.diagnose.bootstrap import Array
from vsre.diagnose.metrics import ERROR_SHARE
from vsre.diagnose.samples import ERROR
from vsre.errors import VsreError
from vsre.report.halves import SEPARATOR, Half, joined

_NOT_SETTINGS = ("weights", "model_type")


@dataclass(frozen=True)
class Paired:
    """The N questions that both runs were asked and answered, the same rows for both.

    `image`, `key`, `template`, `relation`, `meta` are codes (N,) into the lists that follow them; `truth`, `right_a`,
    ... are flags (N,); `said_a` and `said_b` hold readings. `left_out` counts, for each side and for both, what is
    missing here, by reason; `notes` says what to know before reading the figures.
    """

    a: Half
    b: Half
    image: Array
    images: list[str]
    key: Array
    keys: list[str]
    captions: list[str]
    template: Array
    templates: list[tuple[str, str]]
    relation: Array
    relations: list[str]
    meta: Array
    metas: list[str]
    truth: Array
    right_a: Array
    right_b: Array
    said_a: Array
    said_b: Array
    left_out: dict[str, dict[str, int]]
    notes: list[str] = field(default_factory=list)

    def of_pack(self, pack: str) -> Paired:
        """Keep one pack's questions, with the relations and templates that occur in them; images and keys stay."""
        here = np.array([name == pack for name, _ in self.templates])[self.template]
        rows = ("image", "key", "template", "relation", "meta", "truth", "right_a", "right_b", "said_a", "said_b")
        cut: dict[str, Any] = {name: getattr(self, name)[here] for name in rows}
        for codes, names in (("template", "templates"), ("relation", "relations"), ("meta", "metas")):
            used, cut[codes] = np.unique(cut[codes], return_inverse=True)
            cut[names] = [getattr(self, names)[i] for i in used]
        return replace(self, **cut)


def pair(a: Half, b: Half) -> Paired:
    """Pair the questions that both runs answered; raises VsreError with every reason found if there are none."""
    left: dict[str, dict[str, int]] = {side: _left_alone(h, o) for side, h, o in (("a", a, b), ("b", b, a))}
    ids = joined(b.table, "pack", "template", "key")
    at = pc.index_in(joined(a.table, "pack", "template", "key"), value_set=ids)
    one, two = a.table.filter(pc.is_valid(at)), b.table.take(at.drop_null())
    out: dict[str, int] = {}
    failed = [pc.or_(pc.equal(t["reading"], ERROR), pc.is_null(t["correct"])) for t in (one, two)]
    tests = {
        "other truth for the same statement": pc.not_equal(one["truth"], two["truth"]),
        "asked in other words under the same template name": pc.fill_null(
            pc.not_equal(one["prompt"], two["prompt"]), False
        ),
        "ended in an error": pc.or_(*failed),
    }
    drop = np.zeros(len(one), bool)
    for reason, found in tests.items():
        mask = np.asarray(found.to_numpy(), bool) & ~drop  # each question under the first reason that holds
        out[reason] = int(mask.sum())
        drop |= mask
    left["both"] = {reason: n for reason, n in out.items() if n}
    shared = one.num_rows
    one, two = (t.filter(pa.array(~drop)) for t in (one, two))
    if not len(one):
        raise VsreError(_nothing_shared(a, b, shared, left))
    image, images = _codes(one["image_id"])
    key, keys = _codes(one["key"])
    template, templates = _codes(pc.binary_join_element_wise(one["pack"], one["template"], SEPARATOR))
    relation, relations = _codes(one["relation"])
    meta, metas = _codes(one["meta_category"])
    captions = np.full(len(keys), "", object)
    captions[key] = [c or "" for c in one["caption"].to_pylist()]
    return Paired(
        a,
        b,
        image,
        images,
        key,
        keys,
        list(captions),
        template,
        [(t.split(SEPARATOR)[0], t.split(SEPARATOR)[1]) for t in templates],
        relation,
        relations,
        meta,
        metas,
        _flags(one["truth"]),
        _flags(one["correct"]),
        _flags(two["correct"]),
        np.array(one["reading"].to_pylist(), object),
        np.array(two["reading"].to_pylist(), object),
        left,
        [*_notes(a, b), *_lost(left["both"], shared), *_twins(one, two)],
    )


def _left_alone(half: Half, other: Half) -> dict[str, int]:
    """Count one run's questions that are not in the other, by reason."""
    counts = {name: n for name, n in half.counts.items() if name != "asked" and n}
    there = pc.is_in(
        joined(half.table, "pack", "template", "key"), value_set=joined(other.table, "pack", "template", "key")
    )
    alone = half.table.filter(pc.invert(there))
    statement = pc.is_in(alone["key"], value_set=pc.unique(other.table["key"]))
    wording = pc.is_in(joined(alone, "pack", "template"), value_set=pc.unique(joined(other.table, "pack", "template")))
    found = {
        "statement not in the other run": pc.invert(statement),
        "wording not in the other run": pc.and_(statement, pc.invert(wording)),
        "not asked in the other run": pc.and_(statement, wording),
    }
    counts |= {name: n for name, mask in found.items() if (n := pc.sum(mask).as_py() or 0)}
    return counts


def _nothing_shared(a: Half, b: Half, shared: int, left: dict[str, dict[str, int]]) -> str:
    """Say why there is nothing to compare, from what the two folders record."""
    why = []
    prints = [h.setting("settings", "triplets") for h in (a, b)]
    if prints[0] != prints[1]:
        why.append(f"their test data differ (fingerprint {prints[0]} against {prints[1]})")
    keys = [pc.unique(h.table["key"]) for h in (a, b)]
    common = pc.sum(pc.is_in(keys[0], value_set=keys[1])).as_py() or 0
    if not common:
        why.append(f"none of the {len(keys[0]):,} statements of one is among the {len(keys[1]):,} of the other")
    packs = [set(pc.unique(h.table["pack"]).to_pylist()) for h in (a, b)]
    if packs[0].isdisjoint(packs[1]):
        why.append(f"their packs differ ({_listed(packs[0])} against {_listed(packs[1])})")
    if shared:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in left["both"].items())
        why.append(f"of the {shared:,} questions asked of both, none can be used: {reasons}")
    elif common and not packs[0].isdisjoint(packs[1]):
        why.append("no statement was asked of both under the same template")
    return (
        f"{a.name} and {b.name} cannot be compared: {'; '.join(why)}. Diagnose both models on the same triplets "
        "with the same packs."
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _notes(a: Half, b: Half) -> list[str]:
    """Return what a reader must know before reading the figures."""
    told = [
        f"{h.name} was trained under the leaking protocol “{h.info.get('protocol')}”: most test statements are in "
        "its training data, so right answers reflect memory as well as sight."
        for h in (a, b)
        if h.leaks
    ]
    told += [
        f"{h.name} is not finished; only what it has answered so far is compared." for h in (a, b) if _unfinished(h)
    ]
    prints = [h.setting("settings", "triplets") for h in (a, b)]
    if prints[0] != prints[1]:
        told.append(f"The test data differ ({prints[0]} against {prints[1]}): only what they share is compared.")
    packs = [h.setting("settings", "packs") or {} for h in (a, b)]
    changed = sorted(p for p in packs[0].keys() & packs[1].keys() if packs[0][p] != packs[1][p])
    if changed:
        told.append(f"The content of the packs {', '.join(changed)} is not the same in the two runs.")
    versions = [str(h.info.get("vsre", "unknown")) for h in (a, b)]
    if versions[0] != versions[1] or versions[0] != vsre.__version__:
        told.append(f"Made by vsre {versions[0]} and {versions[1]}; compared by {vsre.__version__}.")
    flat = [_flat(h.setting("settings", "engine") or {}) for h in (a, b)]
    differ = [
        f"{name} {flat[0].get(name)} against {flat[1].get(name)}"
        for name in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(name) != flat[1].get(name) and name not in _NOT_SETTINGS
    ]
    if differ:
        told.append(f"The two differ in more than the model: {'; '.join(differ)}.")
    if any(h.table["prompt"].null_count for h in (a, b)):
        told.append("A run keeps no prompts, so it is unknown whether both were asked in the same words.")
    return told


def _lost(both: dict[str, int], shared: int) -> list[str]:
    """Say why questions asked of both were left out, unless only a few ended in an error."""
    return [
        f"{n:,} of {shared:,} questions asked of both are left out: {reason}."
        for reason, n in both.items()
        if n > ERROR_SHARE * shared or not reason.startswith("ended")
    ]


def _twins(one: pa.Table, two: pa.Table) -> list[str]:
    same = one["reading"].combine_chunks().equals(two["reading"].combine_chunks())
    return ["Every answer reads the same in both runs: they may be one model."] if same else []


def _unfinished(half: Half) -> bool:
    return "finished" in half.info and half.info["finished"] is None


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _codes(column: pa.ChunkedArray) -> tuple[Array, list[str]]:
    names = pc.unique(column).sort()
    return pc.index_in(column, value_set=names).to_numpy().astype(np.int64), names.to_pylist()


def _flags(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.to_numpy(), bool)
