"""Repaint: new pictures for triplets, each with its captions, their truth and the kind of every negative."""

from vsre.repaint.painter import KINDS, SETTINGS, Painted, Painter, PaintJob, Refused, Statement, Vocabulary
from vsre.repaint.run import repaint
from vsre.repaint.scene_painter import ScenePainter

__all__ = [
    "KINDS",
    "SETTINGS",
    "PaintJob",
    "Painted",
    "Painter",
    "Refused",
    "ScenePainter",
    "Statement",
    "Vocabulary",
    "repaint",
]
