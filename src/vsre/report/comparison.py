"""The result of comparing two runs: rows of its tables, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vsre.report.paired_tests import ALPHA

TITLES = {"test-s": "Test-S", "pool": "Test-G", "held-out": "Unseen"}
"""The names of the headline packs' figures; any other pack is shown under its own name."""


@dataclass(frozen=True)
class Contrast:
    """One row of a comparison: acc_t of A, of B and B - A, all as fractions, on the questions that both answered.

    `low` and `high` bound the difference with 95 % (null with one image); `p` is the sign-flip test over images,
    `p_holm` and `q_bh` are corrected for the rows of the same table. `a_only` and `b_only` count the questions that
    only one of the two has right; `mcnemar` and `mcnemar_mid` are p-values by questions if each statement was asked
    once, else null. `discordance`, `design_effect`: see paired_tests.Spread. `detectable` is the smallest difference
    that the sample shows with 80 % power at .05, `detectable_corrected` that at .05 divided by the rows of the table.
    """

    name: str
    pack: str | None
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    p: float
    a_only: int
    b_only: int
    questions: int
    statements: int
    images: int
    mcnemar: float | None
    mcnemar_mid: float | None
    discordance: float
    design_effect: float
    detectable: float | None
    detectable_corrected: float | None = None
    p_holm: float = 1.0
    q_bh: float = 1.0

    @property
    def verdict(self) -> str:
        """ "B higher", "A higher" or "not told apart", at .05 after Holm's correction."""
        if self.p_holm >= ALPHA:
            return "not told apart"
        return "B higher" if self.difference > 0 else "A higher"


@dataclass(frozen=True)
class Agreement:
    """How the answers to the same questions relate, for one pack.

    `same` is the share that both read alike as yes or no (no answer agrees with nothing), with a 95 % interval over
    images; `kappa` is error consistency, Cohen's kappa of right and wrong (Geirhos, Meding & Wichmann 2020): 0 if two
    models err together no more than their accuracies imply, 1 if they err on the same questions. Null if both are
    always right or both always wrong.
    """

    name: str
    questions: int
    both_right: int
    a_only: int
    b_only: int
    both_wrong: int
    same: float
    low: float | None
    high: float | None
    kappa: float | None


@dataclass(frozen=True)
class Beside:
    """A figure besides accuracy: A, B and B - A with its 95 % interval (paired bootstrap over images, uncorrected)."""

    name: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Swing:
    """A statement with the number of wordings, of `wordings`, under which each model is right."""

    key: str
    image_id: str
    caption: str
    relation: str
    truth: bool
    wordings: int
    a_right: int
    b_right: int


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found; `tables` holds contrasts by "overall", "meta_category", "relation" and "template".

    Those by relation and meta category use only the wordings of `grouped_over`, or all if it is null.
    """

    a: str
    b: str
    questions: int
    statements: int
    images: int
    left_out: dict[str, dict[str, int]]
    notes: list[str]
    grouped_over: str | None
    tables: dict[str, list[Contrast]]
    agreement: list[Agreement]
    beside: list[Beside]
    swings: dict[str, list[Swing]]
    seed: int
    resamples: int

    def as_json(self) -> dict[str, Any]:
        """Return everything for programs: fractions, null if unknown; each contrast with its verdict."""
        found = asdict(self)
        for name, rows in self.tables.items():
            found["tables"][name] = [asdict(row) | {"verdict": row.verdict} for row in rows]
        return found
