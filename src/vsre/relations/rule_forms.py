"""The rules for photographs as data: the forms in `photo_rules.yaml`, the thresholds in `photo_thresholds.yaml`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.relations.ontology import RELATIONS
from vsre.relations.photo_measures import MEASURES

FORMS = Path(__file__).with_name("photo_rules.yaml")
THRESHOLDS = Path(__file__).with_name("photo_thresholds.yaml")

Side = Literal["pass", "fail"]
SIDES: tuple[Side, Side] = ("pass", "fail")
View = Literal["same", "swap", "mirror"]
M = TypeVar("M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Choice(_Strict):
    """A threshold that is chosen on people's labels, and the values it is chosen from."""

    choose: tuple[float, ...] = Field(min_length=1)


class Condition(_Strict):
    """`measure` lies over, or under, a threshold."""

    measure: str
    over: float | Choice | None = None
    under: float | Choice | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.measure not in MEASURES:
            raise ValueError(f"no measure {self.measure!r}; there are {', '.join(MEASURES)}")
        if (self.over is None) == (self.under is None):
            raise ValueError(f"{self.measure}: give a threshold either as `over` or as `under`")
        return self

    @property
    def threshold(self) -> float | Choice:
        return self.over if self.over is not None else self.under  # type: ignore[return-value]

    @property
    def sign(self) -> int:
        return 1 if self.over is not None else -1


Alternative = tuple[Condition, ...]


class Rule(_Strict):
    """The relations a rule covers, each with the view it is judged in, and its alternatives for each verdict."""

    relations: dict[str, View] = Field(min_length=1)
    pass_: tuple[Alternative, ...] = Field(alias="pass")
    fail: tuple[Alternative, ...]

    def alternatives(self, side: Side) -> tuple[Alternative, ...]:
        return self.pass_ if side == "pass" else self.fail


class Aim(_Strict):
    """The precision that a verdict on some relations should reach."""

    name: str
    relations: tuple[str, ...]
    verdict: Side
    precision: float


class Forms(_Strict):
    """The contents of `photo_rules.yaml`: every relation of VSR appears in it once."""

    rules: dict[str, Rule]
    undecided: dict[str, tuple[str, ...]]
    aims: tuple[Aim, ...]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        named = [r for rule in self.rules.values() for r in rule.relations]
        named += [r for relations in self.undecided.values() for r in relations]
        wrong = sorted({r for r in named if named.count(r) > 1} | set(named) ^ RELATIONS.keys())
        if wrong:
            raise ValueError(f"each of VSR's relations must appear here once; check {', '.join(wrong)}")
        return self

    def chosen(self) -> Iterator[tuple[str, Side, int, Alternative]]:
        """The alternatives with thresholds to choose: rule, side, number, conditions."""
        for name, rule in self.rules.items():
            for side in SIDES:
                for number, alternative in enumerate(rule.alternatives(side)):
                    if choices(alternative):
                        yield name, side, number, alternative

    @property
    def digest(self) -> str:
        """12 hex digits that change with anything the thresholds depend on."""
        rules = {name: rule.model_dump_json(by_alias=True) for name, rule in self.rules.items()}
        return hashlib.sha256(repr(sorted(rules.items())).encode()).hexdigest()[:12]


Values = tuple[float, ...] | None
"""The chosen thresholds of an alternative, in the order of its conditions; None if it is not used."""


class Provenance(_Strict):
    """Where thresholds come from: the data, its half, the weights of choosing (study/choosing.py), the forms, the
    date."""

    data: str
    half: str
    rows: int
    images: int
    price: float
    fewest: int
    forms: str
    date: str


class Thresholds(_Strict):
    """rule -> side -> one entry for each alternative that has something to choose."""

    provenance: Provenance
    thresholds: dict[str, dict[Side, tuple[Values, ...]]]

    @field_validator("thresholds")
    @classmethod
    def _numbers(cls, value: dict[str, dict[Side, tuple[Values, ...]]]) -> dict[str, dict[Side, tuple[Values, ...]]]:
        if any(number != number for sides in value.values() for alternatives in sides.values()
               for values in alternatives for number in values or ()):  # fmt: skip
            raise ValueError("a threshold is not a number")
        return value


def choices(alternative: Alternative) -> tuple[Choice, ...]:
    """The thresholds to choose in an alternative, in order; empty if all are set by hand."""
    return tuple(c.threshold for c in alternative if isinstance(c.threshold, Choice))


def load_forms(path: Path = FORMS) -> Forms:
    """The forms of the rules; raises VsreError saying where the file is wrong."""
    return _load(path, Forms)


def load_thresholds(path: Path = THRESHOLDS) -> Thresholds:
    """Thresholds and where they come from; raises VsreError saying where the file is wrong."""
    return _load(path, Thresholds)


def dump_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Write thresholds as `load_thresholds` reads them."""
    note = "# The thresholds of photo_rules.yaml, chosen on people's labels: `vsre geometry --write-thresholds FILE`.\n"
    text = yaml.safe_dump(
        thresholds.model_dump(mode="json", by_alias=True), sort_keys=False, default_flow_style=None, width=120
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, note + text)


def _load(path: Path, model: type[M]) -> M:
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return model.model_validate(raw)
    except OSError as error:
        raise VsreError(f"{path}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise VsreError(f"{path}: not readable as YAML ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise VsreError(f"{path}: {where}: {first['msg']}. ({error.error_count()} in all)") from error
