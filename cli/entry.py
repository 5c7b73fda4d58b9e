"""Where the command starts: `--version` answers before click is imported, which is most of what starting costs."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script `alexinspect`."""
    if sys.argv[1:] != ["--version"]:
        from .main import main as command

        command()
        return
    from inspector._version import __version__

    try:
        os.write(1, f"alexinspect {__version__}\n".encode())
    except OSError:  # a closed pipe or a full disk; nobody is left to tell
        sys.exit(1)
