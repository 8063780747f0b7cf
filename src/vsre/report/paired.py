"""Two models on the same questions: by how much they differ, whether the sample shows it, and on which questions.

The unit is the image: intervals are a paired bootstrap over images, p-values a sign-flip test over images, both for the
difference of acc_t (right answers as a share of the questions asked). McNemar's test, which treats questions as
independent, is given for single wordings. Each table is corrected for its number of comparisons, and every row says the
smallest difference that its sample could have shown, so that "not told apart" is never read as "no difference".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vsre.diagnose.bootstrap import Array, Bootstrap, Draws
from vsre.diagnose.metrics import HEADLINES
from vsre.diagnose.samples import UNANSWERED
from vsre.errors import VsreError
from vsre.report import paired_tests as tests
from vsre.report.comparison import TITLES, Agreement, Beside, Comparison, Contrast, Swing
from vsre.report.halves import open_half, short_names
from vsre.report.pairing import Paired, pair


def compare_runs(
    a: Path | str,
    b: Path | str,
    *,
    pack: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
    flips: int = 10_000,
    examples: int = 5,
) -> Comparison:
    """Compare two run folders of `vsre diagnose` on the questions that both answered.

    The tables by relation and meta category use the wordings of `pack`: by default the pool if both were asked it, so
    that they break down Test-G, and otherwise all. `resamples` and `flips` are draws of the bootstrap and of the
    sign-flip test, `examples` is how many statements are listed each way. Raises VsreError, with the reasons, for a
    folder that is not such a run, samples that lack columns, and runs that share no question; questions that cannot be
    compared are counted in `left_out`.
    """
    folders = [Path(a), Path(b)]
    names = ["A", "B"] if folders[0].resolve() == folders[1].resolve() else short_names(folders)
    paired = pair(*(open_half(f, n) for f, n in zip(folders, names, strict=True)))
    packs = sorted({name for name, _ in paired.templates})
    if pack is not None and pack not in packs:
        raise VsreError(f"pack {pack!r} was not asked in both runs. Both were asked: {', '.join(packs)}.")
    over = pack or (HEADLINES["test_g"] if HEADLINES["test_g"] in packs else None)
    bootstrap = Bootstrap(len(paired.images), resamples=resamples, seed=seed)
    work = _Work(paired, bootstrap, flips, seed)
    grouped = work if over is None else _Work(paired.of_pack(over), bootstrap, flips, seed)
    return Comparison(
        a=names[0],
        b=names[1],
        questions=len(paired.key),
        statements=len(paired.keys),
        images=len(paired.images),
        left_out=paired.left_out,
        notes=paired.notes,
        grouped_over=over,
        tables={**work.overall(), **grouped.groups(), **work.wordings()},
        agreement=work.agreement(),
        beside=work.beside(),
        swings=work.swings(examples),
        seed=seed,
        resamples=resamples,
    )


class _Work:
    """The figures of paired questions; `packs` are those shared, headline packs first."""

    def __init__(self, paired: Paired, bootstrap: Bootstrap, flips: int, seed: int) -> None:
        self.d, self.bootstrap, self.flips, self.seed = paired, bootstrap, flips, seed
        there = list(dict.fromkeys(pack for pack, _ in paired.templates))
        self.packs = [p for p in HEADLINES.values() if p in there] + [p for p in there if p not in TITLES]
        code = np.array([self.packs.index(pack) for pack, _ in paired.templates])
        self.columns = [np.flatnonzero(code == i) for i in range(len(self.packs))]
        self.pack = code[paired.template]
        templates = len(paired.templates)
        self.by_template = [self._rates(paired.template, templates, r) for r in (paired.right_a, paired.right_b)]
        self.share = 1 / np.bincount(paired.template, minlength=templates)[paired.template]

    def _sums(self, group: Array, groups: int, values: Array) -> Array:
        return self.bootstrap.per_image(self.d.image, group, groups, values)

    def _rates(self, group: Array, groups: int, values: Array, of: Array | None = None) -> Draws:
        """Return the share of `values` among the questions `of` (all), per group, on the data and each resample."""
        below = np.ones(len(group)) if of is None else of
        pair_ = (self._sums(group, groups, v) for v in (values * below, below))
        return self.bootstrap.figures(np.divide, *pair_)

    def overall(self) -> dict[str, list[Contrast]]:
        """Return one row per pack: the mean over its wordings, equally weighted, as are the questions in each."""
        rates = [Draws(np.hstack([drawn.mean(c).all for c in self.columns])) for drawn in self.by_template]
        widths = np.array([len(columns) for columns in self.columns])
        names = [(TITLES.get(pack, pack), pack) for pack in self.packs]
        return {"overall": self._contrasts(names, self.pack, self.share / widths[self.pack], rates)}

    def wordings(self) -> dict[str, list[Contrast]]:
        names = [(template, pack) for pack, template in self.d.templates]
        rows = self._contrasts(names, self.d.template, self.share, self.by_template)
        return {"template": sorted(rows, key=lambda row: self.packs.index(row.pack or ""))}

    def groups(self) -> dict[str, list[Contrast]]:
        """Return tables by meta category and by relation, questions equally weighted; most statements first."""
        d, found = self.d, {}
        for name, group, names in (("meta_category", d.meta, d.metas), ("relation", d.relation, d.relations)):
            rates = [self._rates(group, len(names), right) for right in (d.right_a, d.right_b)]
            rows = self._contrasts([(n, None) for n in names], group, 1 / np.bincount(group)[group], rates)
            found[name] = sorted(rows, key=lambda row: -row.statements)
        return found

    def _contrasts(
        self, names: Sequence[tuple[str, str | None]], group: Array, weight: Array, rates: Sequence[Draws]
    ) -> list[Contrast]:
        """Return one table: G groups of questions, each weighted in its group's mean by `weight` (sums to 1)."""
        d, groups = self.d, len(names)
        change = weight * (d.right_b.astype(float) - d.right_a)

        def sums(unit: Array, units: int, values: Array) -> Array:
            return np.bincount(unit * groups + group, values, units * groups).reshape(units, groups)

        images, keys = (d.image, len(d.images)), (d.key, len(d.keys))
        parts = sums(*images, change)
        asked, statements = np.bincount(group, minlength=groups), (sums(*keys, weight) > 0).sum(0)
        by_key = (sums(*keys, change), sums(*keys, weight))
        spreads = tests.spreads(parts, sums(*images, weight), *by_key, wordings=asked / statements)
        # the smallest p that draws can give must stay below the level after Holm's correction for many rows
        p = tests.sign_flip(parts, draws=max(self.flips, 100 * groups), seed=self.seed)
        counts = [np.bincount(group[m], minlength=groups) for m in (d.right_a & ~d.right_b, d.right_b & ~d.right_a)]
        drawn = rates[1].minus(rates[0])
        rows = []
        for i, (name, pack) in enumerate(names):
            figure, spread = drawn.figure(i), spreads[i]
            once = tests.mcnemar(int(counts[0][i]), int(counts[1][i])) if asked[i] == statements[i] else None
            rows.append(
                Contrast(
                    name=name,
                    pack=pack,
                    a=float(rates[0].all[0, i]),
                    b=float(rates[1].all[0, i]),
                    difference=float(drawn.all[0, i]),
                    low=None if spread.images < 2 else figure["low"],
                    high=None if spread.images < 2 else figure["high"],
                    p=float(p[i]),
                    a_only=int(counts[0][i]),
                    b_only=int(counts[1][i]),
                    questions=int(asked[i]),
                    statements=int(statements[i]),
                    images=spread.images,
                    mcnemar=None if once is None else once.exact,
                    mcnemar_mid=None if once is None else once.mid_p,
                    discordance=spread.discordance,
                    design_effect=spread.design_effect,
                    detectable=tests.detectable(spread),
                    detectable_corrected=tests.detectable(spread, alpha=tests.ALPHA / groups),
                )
            )
        return [
            replace(row, p_holm=h, q_bh=q)
            for row, (h, q) in zip(rows, tests.corrected([row.p for row in rows]), strict=True)
        ]

    def agreement(self) -> list[Agreement]:
        d, groups = self.d, len(self.packs)
        alike = (d.said_a == d.said_b) & (d.said_a != UNANSWERED)
        same = self._rates(self.pack, groups, alike.astype(float))
        rows = []
        for i, pack in enumerate(self.packs):
            here = self.pack == i
            a, b, figure = d.right_a[here], d.right_b[here], same.figure(i)
            several = len(np.unique(d.image[here])) > 1
            chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
            rows.append(
                Agreement(
                    name=TITLES.get(pack, pack),
                    questions=len(a),
                    both_right=int((a & b).sum()),
                    a_only=int((a & ~b).sum()),
                    b_only=int((b & ~a).sum()),
                    both_wrong=int((~a & ~b).sum()),
                    same=float(same.all[0, i]),
                    low=figure["low"] if several else None,
                    high=figure["high"] if several else None,
                    kappa=None if chance == 1 else float(((a == b).mean() - chance) / (1 - chance)),
                )
            )
        return rows

    def beside(self) -> list[Beside]:
        """Return the share answered and the yes/no gap, means over wordings, for each pack."""
        d, many = self.d, len(self.d.templates)
        answered, gaps = [], []
        for right, said in ((d.right_a, d.said_a), (d.right_b, d.said_b)):
            answered.append(self._rates(d.template, many, (said != UNANSWERED).astype(float)))
            yes, no = (self._rates(d.template, many, right, of=t.astype(float)) for t in (d.truth, ~d.truth))
            gaps.append(yes.minus(no))
        rows = []
        for i, pack in enumerate(self.packs):
            for name, drawn in (
                ("answered", [rates.mean(self.columns[i]) for rates in answered]),
                # resampling inflates both gaps, the smaller one more
                ("yes/no gap", [gap.distance(self.columns[i]).centred() for gap in gaps]),
            ):
                first, second = drawn
                change = second.minus(first).figure()
                rows.append(
                    Beside(
                        name=f"{TITLES.get(pack, pack)}, {name}",
                        a=first.figure()["value"],
                        b=second.figure()["value"],
                        difference=change["value"],
                        low=change["low"],
                        high=change["high"],
                    )
                )
        return rows

    def swings(self, most: int) -> dict[str, list[Swing]]:
        """Return the statements whose share of wordings answered correctly changed most, each way; ties by key."""
        d, many = self.d, len(self.d.keys)
        asked, a, b = (np.bincount(d.key, v, many) for v in (np.ones(len(d.key)), d.right_a, d.right_b))
        first = np.zeros(many, np.int64)
        first[d.key[::-1]] = np.arange(len(d.key))[::-1]
        change = (b - a) / asked
        found = {}
        for side, toward in (("b_right", change), ("a_right", -change)):
            order = [k for k in np.argsort(-toward, kind="stable")[:most] if toward[k] > 0]
            found[side] = [
                Swing(
                    key=d.keys[k],
                    image_id=d.images[d.image[first[k]]],
                    caption=d.captions[k],
                    relation=d.relations[d.relation[first[k]]],
                    truth=bool(d.truth[first[k]]),
                    wordings=int(asked[k]),
                    a_right=int(a[k]),
                    b_right=int(b[k]),
                )
                for k in order
            ]
        return found
