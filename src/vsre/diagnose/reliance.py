"""What the answers depend on: the figures of the probes, each with an interval over images.

A probe is paired with the base question of the same triplet and template. Pairs with an error count nowhere; an
unanswered question agrees with nothing and contradicts nothing.

gain           accuracy with the picture minus accuracy with a grey frame, and minus that with another row's picture
kept           the share of answers that stay the same although the picture is gone or replaced
follows        the share of pairs in which the second answer follows from the first by logic: the same, or the other
contradiction  the share of triplets for which a statement and its exclusive opposite, or its denial, are both affirmed

A model that always says yes follows whenever the same answer is required. Each share therefore comes with `by_chance`:
what two independent answers would reach with the same shares of yes and no; None if there are none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsre.diagnose.bootstrap import Array, Bootstrap
from vsre.diagnose.probes import (
    BASE,
    BLANK,
    INVERSE,
    MIRROR,
    MIRROR_SWAP,
    NEGATED,
    OPPOSITE,
    OTHER,
    PROBES,
    SWAP,
    WORDS,
)
from vsre.diagnose.samples import ERROR, NO, YES
from vsre.relations.ontology import RELATIONS

FOLLOWS = {
    "left and right in the mirror": (MIRROR, "sided", "turn"),
    "anything else in the mirror": (MIRROR, "unsided", "stay"),
    "left and right in mirror and words": (MIRROR_SWAP, "sided", "stay"),
    "the inverse": (INVERSE, "any", "stay"),
    "symmetric, swapped": (SWAP, "symmetric", "stay"),
    "one-way, swapped": (SWAP, "one-way", "turn"),
    "the opposite": (OPPOSITE, "any", "turn"),
    "the denial": (NEGATED, "any", "turn"),
}
"""What a consistent model does: the probe, for which relations, whether its answer stays or turns. "turn" is required
only if the base answer was yes (a no leaves it open); denials turn both."""

_KINDS = {
    "any": frozenset(RELATIONS),
    "sided": frozenset(name for name, r in RELATIONS.items() if r.mirror != name),
    "unsided": frozenset(name for name, r in RELATIONS.items() if r.mirror == name),
    "symmetric": frozenset(name for name, r in RELATIONS.items() if r.symmetric),
    "one-way": frozenset(name for name, r in RELATIONS.items() if not r.symmetric),
}


class Pairs:
    """Base answers with the answers to one probe, as arrays of n."""

    def __init__(self, base: pa.Table, probe: pa.Table, images: pa.Array) -> None:
        joined = base.join(probe, keys=["key", "template"], join_type="inner", right_suffix="_probe")
        fine = pc.and_(pc.not_equal(joined["reading"], ERROR), pc.not_equal(joined["reading_probe"], ERROR))
        joined = joined.filter(fine)
        self.image = pc.index_in(joined["image_id"].combine_chunks(), images).to_numpy(zero_copy_only=False)
        self.before = _readings(joined["reading"])
        self.after = _readings(joined["reading_probe"])
        self.right = _floats(joined["correct"])
        self.right_probe = _floats(joined["correct_probe"])
        self.relation = joined["relation"].to_pylist()
        self.shift = np.abs(_floats(joined["p_yes"]) - _floats(joined["p_yes_probe"]))

    @property
    def same(self) -> Array:
        return (self.before == self.after) & (self.before >= 0)

    @property
    def turned(self) -> Array:
        return (self.before + self.after == 1) & (self.before >= 0) & (self.after >= 0)

    def of_kind(self, kind: str) -> Array:
        return np.array([name in _KINDS[kind] for name in self.relation], bool)


def _readings(column: pa.ChunkedArray) -> Array:
    """1 yes, 0 no, -1 unanswered."""
    told = column.to_numpy(zero_copy_only=False)
    return np.where(told == YES, 1, np.where(told == NO, 0, -1))


def _floats(column: pa.ChunkedArray) -> Array:
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def picture_reliance(samples: pa.Table, *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """The figures of the probes' samples (`samples.SCHEMA`, `pack` the probe), ready for JSON; see the module."""
    images = pc.unique(samples["image_id"]).sort()
    bootstrap = Bootstrap(len(images), resamples=resamples, seed=seed)
    columns = ["key", "template", "image_id", "relation", "reading", "correct", "p_yes"]
    by_probe = {p: samples.filter(pc.equal(samples["pack"], p)).select(columns) for p in PROBES}
    pairs = {p: Pairs(by_probe[BASE], by_probe[p], images) for p in PROBES if len(by_probe[p])}

    def share(image: Array, hit: Array) -> Any:
        zero = np.zeros(len(image), np.int64)
        sums = [bootstrap.per_image(image, zero, 1, v) for v in (hit.astype(np.float64), np.ones(len(image)))]
        return bootstrap.figures(np.divide, *sums).figure(0, len(image))

    def gain(p: Pairs) -> Any:
        found = share(p.image, p.right - p.right_probe)
        # A difference of two shares: if no answer changed, chance may have hidden a loss as well as a gain.
        return found if (p.right != p.right_probe).any() or not found["n"] else found | {"low": -found["high"]}

    def stays(p: Pairs) -> Any:
        return share(p.image, p.same) | {"by_chance": _agree_by_chance(p.before, p.after)}

    found: dict[str, Any] = {
        "n_triplets": len(pc.unique(by_probe[BASE]["key"])),
        "n_images": len(images),
        "templates": sorted(pc.unique(samples["template"]).to_pylist()),
        "acc_t": {},
        "gain": {p: gain(pairs[p]) for p in (BLANK, OTHER, WORDS) if p in pairs},
        "kept": {p: stays(pairs[p]) for p in (BLANK, OTHER, WORDS) if p in pairs},
        "shift_p_yes": {},
        "follows": {},
        "contradiction": {},
    }
    for name, p in pairs.items():
        known = ~np.isnan(p.right_probe)
        found["acc_t"][name] = share(p.image[known], p.right_probe[known])
        if name in (BLANK, OTHER, WORDS, MIRROR) and (moved := ~np.isnan(p.shift)).any():
            found["shift_p_yes"][name] = share(p.image[moved], p.shift[moved])
    for name, (probe, kind, demand) in FOLLOWS.items():
        if probe not in pairs:
            continue
        p, fits = pairs[probe], pairs[probe].of_kind(kind)
        one_way = demand == "turn" and probe != NEGATED
        asked = fits & (p.before == 1) if one_way else fits
        if not asked.any():
            continue
        hit = p.same if demand == "stay" else p.turned
        before, after = p.before[fits], p.after[fits]
        if one_way:
            chance: float | None = float(np.mean(after == 0))
        elif demand == "stay":
            chance = _agree_by_chance(before, after)
        else:
            chance = _agree_by_chance(before, np.where(after < 0, after, 1 - after))
        found["follows"][name] = share(p.image[asked], hit[asked]) | {"by_chance": chance}
    for probe in (OPPOSITE, NEGATED):
        if probe in pairs:
            p = pairs[probe]
            found["contradiction"][probe] = share(p.image, (p.before == 1) & (p.after == 1))
    return found


def _agree_by_chance(before: Array, after: Array) -> float | None:
    """How often two readings (1 yes, 0 no, -1 unanswered) would agree if they were independent.

    None if there is no pair.
    """
    if not len(before):
        return None
    return float(sum(np.mean(before == told) * np.mean(after == told) for told in (0, 1)))
