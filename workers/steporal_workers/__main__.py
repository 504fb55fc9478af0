"""``python -m steporal_workers``: the same as the command ``steporal``."""

from .cli import main

main()
