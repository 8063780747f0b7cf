"""Diagnosis: any image-text model asked in many wordings, and the figures that distinguish its faults."""

from vsre.diagnose.blank import BlankPictures
from vsre.diagnose.blind import blind_floor, read_statements
from vsre.diagnose.decoding import Decoding
from vsre.diagnose.engines import Engine, TransformersEngine
from vsre.diagnose.metrics import summarise
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Interrupted, Reply, Score
from vsre.diagnose.run import DiagnosisRun, diagnose, load_run

__all__ = [
    "BlankPictures",
    "Decoding",
    "DiagnosisRun",
    "Engine",
    "Interrupted",
    "Prompt",
    "Reply",
    "Score",
    "TransformersEngine",
    "blind_floor",
    "diagnose",
    "load_run",
    "read_statements",
    "summarise",
]
