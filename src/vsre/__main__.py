"""`python -m vsre`: the command line, as launchers of several processes want it."""

from vsre.cli import main

main()
