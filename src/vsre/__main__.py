"""`python -m vsre`: the command line, in the form that multi-process launchers call."""

from vsre.cli import main

main()
