"""Experiments: questions answered by running recipes over several seeds, with tests and plots."""
