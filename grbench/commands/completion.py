"""`grbench completion`: the script that has a shell complete grbench's commands."""

from __future__ import annotations

import sys

import click

SHELLS = ("bash", "zsh", "fish")
COMPINIT = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }"
"""Switches zsh's completion on where the user's own .zshrc has not, before the script registers with it."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands, options, suites, plug-ins, metrics and methods on TAB.

    \b
    grbench completion bash                                            look at it
    source <(grbench completion bash)                                  this bash; zsh alike
    grbench completion fish | source                                   this fish
    grbench completion bash >> ~/.bashrc                               every bash from now on
    grbench completion zsh >> ~/.zshrc                                 every zsh
    grbench completion fish > ~/.config/fish/completions/grbench.fish  every fish
    """
    from click.shell_completion import get_completion_class

    of_shell = get_completion_class(shell)
    assert of_shell is not None, "click completes for all three"
    # Run by each TAB: the command of this name that the shell finds.
    script = of_shell(context.find_root().command, {}, "grbench", "_GRBENCH_COMPLETE").source()
    if shell == "zsh":
        first, rest = script.split("\n", 1)  # `#compdef` has to stay the first line
        script = f"{first}\n\n{COMPINIT}\n{rest}"
    sys.stdout.write(script)
