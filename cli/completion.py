"""`alexinspect completion`: shells are told what can come next."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from inspector.errors import InspectorError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and models in a shell.

    \b
    bash: alexinspect completion bash >~/.local/share/bash-completion/completions/alexinspect
    zsh:  alexinspect completion zsh >"${fpath[1]}/_alexinspect"
    fish: alexinspect completion fish >~/.config/fish/completions/alexinspect.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise InspectorError(f"this version of click has no completion for {shell}", remedy="upgrade click")
    click.echo(script(ctx.find_root().command, {}, "alexinspect", "_ALEXINSPECT_COMPLETE").source())
