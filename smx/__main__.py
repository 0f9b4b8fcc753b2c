"""The command `smx`, also as `python -m smx`: what signals do is settled before anything else is loaded."""

import os
import sys

from smx.ending import end_on_signals


def main() -> None:
    """Run the command."""
    open_streams()
    end_on_signals()
    from smx.cli import main

    main()


def open_streams() -> None:
    """Let standard streams that the caller has closed lead nowhere; a file that is opened would take their place."""
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


if __name__ == "__main__":
    main()
