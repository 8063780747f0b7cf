"""vsre: measure and fix how vision-language models see space."""

__version__ = "0.1.0"
