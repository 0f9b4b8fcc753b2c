"""The command `smx`, also as `python -m smx`: what signals do is settled before anything else is loaded."""

import _signal  # type: ignore[import-not-found] # built in; the module `signal` takes a while to load
import os
import sys

if __name__ != "__mp_main__" and hasattr(_signal, "pthread_sigmask"):  # not in a child, nor on Windows
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP])


def main() -> None:
    """Run the command."""
    open_streams()
    from smx.ending import end_on_signals

    end_on_signals()  # what came meanwhile ends the process here
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
