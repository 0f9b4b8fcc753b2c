"""How every command ends: a result, or one line and an exit code."""

from __future__ import annotations

from typing import Any

import click

from smx.errors import SmxError

EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "onnx": "train",
    "onnx_ir": "train",
    "onnxscript": "train",
    "sklearn": "train",
    "matplotlib": "train",
}
"""Which extra brings a package that the base install does not have."""

INTERRUPTED = 130


class Failure(click.ClickException):
    """Ends a command with `Error: message` on one line of standard error, and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code  # type: ignore[misc]


class Group(click.Group):
    """A group whose commands never end in a traceback for what a user can meet."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn errors into one line and the exit code that they carry."""
        try:
            return super().invoke(ctx)
        except SmxError as error:
            raise Failure(str(error), error.exit_code) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            extra = EXTRAS[package]
            command = f"smx {ctx.invoked_subcommand}"
            raise Failure(
                f"{command} needs {package}, which is not installed; run: pip install 'smartmixed[{extra}]'",
                1,
            ) from error
        except BrokenPipeError:
            raise  # click's own business
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise Failure(f"{where}{error.strerror or error}", 1) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
