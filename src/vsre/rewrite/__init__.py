"""Rewrite: triplets asked in many wordings, and answers read back."""

from vsre.rewrite.asking import Question, Template, TemplatePack, ask
from vsre.rewrite.choices import Choice, read_choice
from vsre.rewrite.formats import FORMATS, AnswerFormat
from vsre.rewrite.packs import load_pack, shipped_packs
from vsre.rewrite.questions import QUESTION_SCHEMA, read_questions, rewrite, some_templates
from vsre.rewrite.reading import Reading, read_answer

__all__ = [
    "FORMATS",
    "QUESTION_SCHEMA",
    "AnswerFormat",
    "Choice",
    "Question",
    "Reading",
    "Template",
    "TemplatePack",
    "ask",
    "load_pack",
    "read_answer",
    "read_choice",
    "read_questions",
    "rewrite",
    "shipped_packs",
    "some_templates",
]
