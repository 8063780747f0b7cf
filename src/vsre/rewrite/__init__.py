"""Rewrite: triplets asked in many wordings, and answers read back."""

from vsre.rewrite.asking import Question, Template, TemplatePack, ask
from vsre.rewrite.formats import FORMATS, AnswerFormat
from vsre.rewrite.packs import load_pack, shipped_packs
from vsre.rewrite.questions import QUESTION_SCHEMA, read_questions, rewrite

__all__ = [
    "FORMATS",
    "QUESTION_SCHEMA",
    "AnswerFormat",
    "Question",
    "Template",
    "TemplatePack",
    "ask",
    "load_pack",
    "read_questions",
    "rewrite",
    "shipped_packs",
]
