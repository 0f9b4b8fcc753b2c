"""`smx completion`: what makes a shell complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from smx.cli import options


@click.command(cls=options.Command)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes smx in a shell.

    Add the line to ~/.bashrc or ~/.zshrc; for fish write the script to ~/.config/fish/completions/smx.fish.

    \b
    eval "$(smx completion bash)"
    smx completion fish > ~/.config/fish/completions/smx.fish
    """
    make = get_completion_class(shell)
    assert make is not None, "click knows these shells"
    click.echo(make(ctx.find_root().command, {}, "smx", "_SMX_COMPLETE").source())
