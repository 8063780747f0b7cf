"""For use with other tools: the expanded test sets as a Hugging Face data set and as lmms-eval tasks, and VSRE as one
of lmms-eval's models."""
