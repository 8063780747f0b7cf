"""Models for use elsewhere: plain transformers folders with their code and card, on disk or on the hub."""

from vsre.export.folder import export_model, model_code
from vsre.export.hub import push_model

__all__ = ["export_model", "model_code", "push_model"]
