"""How well the rules for photographs agree with people: `vsre geometry`."""

from vsre.relations.study.run import study

__all__ = ["study"]
