"""Training: stages as data, questions packed by image, runs that can be killed at any moment."""

from vsre.train.examples import ChatEncoder, Example
from vsre.train.packing import Packer
from vsre.train.run import run_stages
from vsre.train.stages import DataSource, Stage, load_stages, parse_stages

__all__ = [
    "ChatEncoder",
    "DataSource",
    "Example",
    "Packer",
    "Stage",
    "load_stages",
    "parse_stages",
    "run_stages",
]
