"""Published rules for left, right, above and below, to compare with.

VISOR (Gokhale et al. 2022, arXiv 2212.10015): the sign of the distance between the centres of two boxes. GenEval (Ghosh
et al. 2023, arXiv 2310.11513, `relative_position` of its evaluation code): the distance shrunk by a tenth of the summed
sizes on each axis, over its length; a relation holds beyond 0.5. GenEval measures in pixels; here boxes are fractions
of the sides, since lists of boxes need not give the image's size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Direction -> axis (0 x, 1 y) and sign of the subject's centre minus the object's."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "left": ("left of", "at the left side of"),
    "right": ("right of", "at the right side of"),
    "above": ("above", "over"),
    "below": ("below",),
}
"""Direction -> the relations of VSR that express it."""

_SHRINK, _BEYOND = 0.1, 0.5


def visor(subject: Array, object: Array, direction: str) -> Array:
    """VISOR's evidence for the direction, (n,), from boxes (n, 4); positive if VISOR says that it holds."""
    axis, sign = DIRECTIONS[direction]
    return sign * _offset(subject, object)[:, axis]


def geneval(subject: Array, object: Array, direction: str) -> Array:
    """GenEval's evidence for the direction, (n,), from boxes (n, 4); positive if GenEval says that it holds."""
    axis, sign = DIRECTIONS[direction]
    offset = _offset(subject, object)
    sizes = (subject[:, 2:] - subject[:, :2]) + (object[:, 2:] - object[:, :2])
    shrunk = np.sign(offset) * np.maximum(np.abs(offset) - _SHRINK * sizes, 0)
    length = np.maximum(np.hypot(*offset.T), 1e-12)
    return sign * shrunk[:, axis] / length - _BEYOND


RULES = {"VISOR": visor, "GenEval": geneval}
"""Name -> rule."""


def _offset(subject: Array, object: Array) -> Array:
    return (subject[:, :2] + subject[:, 2:] - object[:, :2] - object[:, 2:]) / 2
