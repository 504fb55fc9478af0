"""Entry point of ``python -m steporal_workers`` and of the script ``steporal``."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command ``steporal``."""
    try:
        from .cli import main as command
    except ModuleNotFoundError as err:
        if err.name not in ("click", "rich"):
            raise
        sys.exit(f"error: the command needs {err.name!r}, which is not installed: pip install 'steporal[cli]'")
    command()


if __name__ == "__main__":
    main()
