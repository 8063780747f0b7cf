"""Where people already work: the expanded test sets as a Hugging Face data set, as lmms-eval tasks, and VSRE as one
of lmms-eval's models."""
