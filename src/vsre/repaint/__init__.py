"""Repaint: new pictures for triplets, each with its captions, their truth and the kind of every negative."""

from vsre.repaint.diffusion import DiffusionPainter
from vsre.repaint.ledger import ledger_rows, ledger_tables, read_ledger, read_pictures
from vsre.repaint.painter import KINDS, SETTINGS, Painted, Painter, PaintJob, Refused, Statement, Vocabulary
from vsre.repaint.presets import DiffusionConfig, load_config
from vsre.repaint.run import repaint
from vsre.repaint.scene_painter import ScenePainter
from vsre.repaint.verify import SceneTruth, Verification, Verifier

__all__ = [
    "KINDS",
    "SETTINGS",
    "DiffusionConfig",
    "DiffusionPainter",
    "PaintJob",
    "Painted",
    "Painter",
    "Refused",
    "ScenePainter",
    "SceneTruth",
    "Statement",
    "Verification",
    "Verifier",
    "Vocabulary",
    "ledger_rows",
    "ledger_tables",
    "load_config",
    "read_ledger",
    "read_pictures",
    "repaint",
]
