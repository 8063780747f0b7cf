"""The figures of a diagnosis, from its samples (arXiv 2412.18224, section on evaluation, and more).

Per template: `answered` (share with a readable answer), `acc_t` (right / all), `acc_a` (right / answered), `yes_acc`
and `no_acc` (acc_t on the rows whose truth is yes, and no) and `bias` (yes_acc - no_acc). An unanswered question
counts as not right in acc_t; one that ended in an error counts nowhere but in `errors`.

`auroc` measures how well p(yes) ranks true above false captions, whatever the model's bias; `dprime` and `criterion`
give sensitivity and bias of the decision p(yes) > 1/2, with the log-linear correction (criterion > 0 leans towards no).
These are means over templates, each computed on its own: a shift of p(yes) between wordings is a fault of its own,
which `consistency` shows. Every figure is {"value", "low", "high", "n"}: see `bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import ndtri  # type: ignore[import-untyped]

from vsre.diagnose.bootstrap import Array, Bootstrap, Draws, Figure
from vsre.diagnose.likelihood import by_likelihood
from vsre.diagnose.samples import ERROR, UNANSWERED

HEADLINES = {"test_s": "test-s", "test_g": "pool", "unseen": "held-out"}
"""Which pack each headline figure is measured with."""

ERROR_SHARE = 0.01
"""With a larger share of errors the result carries a warning."""

RATES = ("answered", "acc_t", "acc_a", "yes_acc", "no_acc", "bias")
SIGNALS = ("auroc", "dprime", "criterion")


@dataclass(frozen=True)
class Grouped:
    """Figures of G groups of samples; `n` (G,) holds the denominator of each figure."""

    draws: dict[str, Draws]
    n: dict[str, Array]

    def row(self, group: int, names: Sequence[str]) -> dict[str, Figure]:
        return {name: self.draws[name].figure(group, int(self.n[name][group])) for name in names}


class Answered:
    """Samples without errors, as arrays of n codes and values."""

    def __init__(self, samples: pa.Table, *, resamples: int = 1000, seed: int = 0) -> None:
        self.table = table = samples.filter(pc.not_equal(samples["reading"], ERROR))
        self.image, self.images = _codes(table["image_id"])
        self.key, self.keys = _codes(table["key"])
        self.relation, self.relations = _codes(table["relation"])
        self.meta, self.metas = _codes(table["meta_category"])
        # A template is identified by pack and id: two packs may each have a template "short".
        self.template, templates = _codes(pc.binary_join_element_wise(table["pack"], table["template"], "\x1f"))
        self.templates = [tuple(name.split("\x1f")) for name in templates]
        self.truth = _array(table["truth"], bool)
        self.correct = _array(table["correct"], bool)
        self.read = _array(pc.not_equal(table["reading"], UNANSWERED), bool)
        self.p_yes = _array(table["p_yes"], np.float64)
        self.bootstrap = Bootstrap(len(self.images), resamples=resamples, seed=seed)

    def rates(self, group: Array, groups: int) -> Grouped:
        """RATES for each group of samples."""

        def sums(values: Array) -> Array:
            return self.bootstrap.per_image(self.image, group, groups, values)

        ones = np.ones(len(group))
        asked, read, right = sums(ones), sums(self.read), sums(self.correct)
        yes, right_yes = sums(self.truth), sums(self.truth & self.correct)
        counts = {
            "answered": (read, asked),
            "acc_t": (right, asked),
            "acc_a": (right, read),
            "yes_acc": (right_yes, yes),
            "no_acc": (right - right_yes, asked - yes),
        }
        draws = {name: self.bootstrap.figures(np.divide, *pair) for name, pair in counts.items()}
        n = {name: below.sum(0) for name, (_, below) in counts.items()}
        draws["bias"], n["bias"] = draws["yes_acc"].minus(draws["no_acc"]), asked.sum(0)
        return Grouped(draws, n)

    @cached_property
    def by_template(self) -> Grouped:
        """RATES, and SIGNALS where the engine gave p(yes), for each template."""
        rates = self.rates(self.template, len(self.templates))
        known = ~np.isnan(self.p_yes)
        signals = self._detection(known)
        signals["auroc"] = self._auroc(known)
        n = np.bincount(self.template[known], minlength=len(self.templates))
        return Grouped({**rates.draws, **signals}, {**rates.n, **dict.fromkeys(signals, n)})

    def _detection(self, known: Array) -> dict[str, Draws]:
        image, group, truth = self.image[known], self.template[known], self.truth[known]
        said = self.p_yes[known] > 0.5

        def sums(values: Array) -> Array:
            return self.bootstrap.per_image(image, group, len(self.templates), values)

        def rates(hits: Array, false_alarms: Array, yes: Array, no: Array) -> tuple[Array, Array]:
            hit, false = ndtri((hits + 0.5) / (yes + 1)), ndtri((false_alarms + 0.5) / (no + 1))
            both = (yes > 0) & (no > 0)
            return np.where(both, hit, np.nan), np.where(both, false, np.nan)

        counts = [sums(values) for values in (truth & said, ~truth & said, truth, ~truth)]
        return {
            "dprime": self.bootstrap.figures(lambda *c: np.subtract(*rates(*c)), *counts),
            "criterion": self.bootstrap.figures(lambda *c: -np.add(*rates(*c)) / 2, *counts),
        }

    def _auroc(self, known: Array) -> Draws:
        columns = []
        for group in range(len(self.templates)):
            rows = np.flatnonzero(known & (self.template == group))
            columns.append(self._auroc_of(rows))
        return Draws(np.stack(columns, axis=1) if columns else np.empty((1, 0)))

    def _auroc_of(self, rows: Array) -> Array:
        """(1 + R,): P(a true caption's p(yes) > a false one's), ties counted half; on the data and each resample."""
        yes, no = (rows[self.truth[rows] == truth] for truth in (True, False))
        if not len(yes) or not len(no):
            return np.full(1 + len(self.bootstrap.weights), np.nan)
        no = no[np.argsort(self.p_yes[no], kind="stable")]
        drawn_yes, drawn_no = (self.bootstrap.drawn[self.image[side]] for side in (yes, no))  # (n, 1 + R)
        first, last = (np.searchsorted(self.p_yes[no], self.p_yes[yes], side=side) for side in ("left", "right"))
        below = np.concatenate([np.zeros_like(drawn_no[:1]), np.cumsum(drawn_no, axis=0)])  # (no + 1, 1 + R)
        beaten = below[first] if (first == last).all() else (below[first] + below[last]) / 2  # (yes, 1 + R)
        with np.errstate(invalid="ignore"):
            total = drawn_yes.sum(0, dtype=np.float64) * below[-1]
            return np.einsum("nr,nr->r", drawn_yes, beaten, dtype=np.float64) / total

    def consistency(self) -> dict[str, Figure]:
        """How consistent the answers are across wordings.

        `all_agree` is the share of triplets answered alike under all templates, `pairwise` the mean over triplets of
        the share of template pairs that answer alike. An unanswered question agrees with nothing.
        Triplets asked with only one template are left out.
        """
        n_keys = len(self.keys)
        n = np.bincount(self.key, minlength=n_keys)
        right = np.bincount(self.key, weights=self.correct, minlength=n_keys)
        wrong = np.bincount(self.key, weights=self.read & ~self.correct, minlength=n_keys)
        image = np.zeros(n_keys, np.int64)
        image[self.key] = self.image
        several = n > 1
        n, right, wrong, image = n[several], right[several], wrong[several], image[several]
        whole = ((right == n) | (wrong == n)).astype(np.float64)
        pairs = (right * (right - 1) + wrong * (wrong - 1)) / (n * (n - 1))
        zero = np.zeros(len(n), np.int64)
        below = self.bootstrap.per_image(image, zero, 1, np.ones(len(n)))
        return {
            name: self.bootstrap.figures(np.divide, self.bootstrap.per_image(image, zero, 1, values), below).figure(
                0, len(n)
            )
            for name, values in (("all_agree", whole), ("pairwise", pairs))
        }

    def over_templates(self, columns: Array) -> dict[str, Any]:
        """The mean of each figure over some templates, how acc_t spreads over them, and the mean absolute bias."""
        grouped = self.by_template
        found: dict[str, Any] = {
            name: draws.mean(columns).figure(0, int(grouped.n[name][columns].sum()))
            for name, draws in grouped.draws.items()
        }
        n = int(grouped.n["bias"][columns].sum())
        found["absolute_bias"] = grouped.draws["bias"].mean_distance(columns, n)
        acc = grouped.draws["acc_t"].all[0, columns]
        acc = acc[~np.isnan(acc)]
        if len(acc):
            found["acc_t_over_templates"] = {
                "std": float(acc.std()),
                "min": float(acc.min()),
                "max": float(acc.max()),
            }
        return {"n_templates": len(columns), **found}


def summarise(samples: pa.Table, *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """The figures of a run's samples (a table of `samples.SCHEMA`), ready for JSON.

    `bias` at the top is the mean over templates of |yes_acc - no_acc|, `signed_bias` that of the difference itself;
    each template and group carries its signed bias. `missing` says why a figure is null.
    """
    data = Answered(samples, resamples=resamples, seed=seed)
    errors = len(samples) - len(data.key)
    packs = np.array([pack for pack, _ in data.templates], dtype=object)
    every = data.over_templates(np.arange(len(packs)))
    missing = {}
    headlines: dict[str, Any] = {}
    for headline, pack in HEADLINES.items():
        columns = np.flatnonzero(packs == pack)
        headlines[headline] = data.over_templates(columns) if len(columns) else None
        if not len(columns):
            missing[headline] = f"the pack {pack} was not asked"
        elif len(columns) == 1:
            headlines[headline]["template"] = data.templates[columns[0]][1]
    if np.isnan(data.p_yes).all():
        missing |= dict.fromkeys(SIGNALS, "the engine gives no likelihoods")
    if every["n_templates"] < 2:
        missing["consistency"] = "only one template was asked"
    per_template = [
        {"pack": pack, "template": template, "n": int(data.by_template.n["acc_t"][i])}
        | data.by_template.row(i, (*RATES, *SIGNALS))
        for i, (pack, template) in enumerate(data.templates)
    ]
    unanswered = int((~data.read).sum())
    return {
        "n_samples": len(samples),
        "n_triplets": len(data.keys),
        "n_images": len(data.images),
        **headlines,
        "answered": every["answered"],
        "bias": every["absolute_bias"],
        "signed_bias": every["bias"],
        **{name: every[name] for name in SIGNALS},
        "consistency": data.consistency(),
        "likelihood": by_likelihood(data, HEADLINES),
        "templates": per_template,
        "by_relation": by_group(data, data.relation, data.relations),
        "by_meta_category": by_group(data, data.meta, data.metas),
        "errors": errors,
        "error_reasons": _reasons(samples),
        "unanswered": unanswered,
        "missing": missing,
        "warnings": _warnings(errors, unanswered, len(samples)),
    }


def by_group(data: Answered, group: Array, names: list[str]) -> dict[str, Any]:
    """RATES of all templates together, by group, the largest first."""
    rates = data.rates(group, len(names))
    order = np.argsort(-rates.n["acc_t"], kind="stable")
    return {names[i]: {"n": int(rates.n["acc_t"][i]), **rates.row(int(i), RATES)} for i in order}


def _reasons(samples: pa.Table, most: int = 5) -> dict[str, int]:
    counts = pc.value_counts(samples["error"].drop_null()).to_pylist()
    return {c["values"]: c["counts"] for c in sorted(counts, key=lambda c: -c["counts"])[:most]}


def _warnings(errors: int, unanswered: int, n: int) -> list[str]:
    told = []
    if n and errors > ERROR_SHARE * n:
        told.append(
            f"{errors} of {n} questions ({100 * errors / n:.1f} %) ended in an error and count nowhere: the figures "
            "are those of the rest, which may be easier or harder."
        )
    if n > errors and unanswered > 0.5 * (n - errors):
        told.append(f"{unanswered} of {n - errors} answers could not be read: look at the samples.")
    return told


def _codes(column: pa.ChunkedArray) -> tuple[Array, list[str]]:
    """A column as codes (n,) and the distinct values, in sorted order so that row order changes nothing."""
    names = sorted(pc.unique(column).to_pylist())
    found = pc.index_in(column, value_set=pa.array(names, pa.string()))
    return _array(found, np.int64), names


def _array(column: pa.ChunkedArray, dtype: Any) -> Array:
    return column.to_numpy().astype(dtype)
