"""The subcommand that prints what a shell needs to complete mostool: completion."""

from __future__ import annotations

import click

from toolchain.cli.app import app, common
from toolchain.cli.output import print_result

_VARIABLE = "_MOSTOOL_COMPLETE"
_INSTALL = {
    "bash": 'add this line to ~/.bashrc: eval "$(mostool completion bash)"',
    "zsh": 'add this line to ~/.zshrc, below compinit: eval "$(mostool completion zsh)"',
    "fish": "mostool completion fish > ~/.config/fish/completions/mostool.fish",
}


@app.command(short_help="let bash, zsh or fish complete commands, options and names")
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@common
def completion(shell: str, json: bool, quiet: bool, debug: bool) -> None:  # noqa: ARG001
    """Print the script by which a shell completes commands, options, and the names of devices, runs and bundles.

    \b
    eval "$(mostool completion bash)"                                       # in this shell, or in ~/.bashrc
    eval "$(mostool completion zsh)"                                        # in ~/.zshrc, below compinit
    mostool completion fish > ~/.config/fish/completions/mostool.fish       # in every new fish
    """
    from click.shell_completion import get_completion_class

    from toolchain.errors import UsageError

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"click completes no {shell}", hint="bash, zsh and fish are known")
    script = kind(app, {}, "mostool", _VARIABLE).source()
    lines = [*script.rstrip().splitlines(), f"# to have it in every new shell: {_INSTALL[shell]}"]
    data = {"shell": shell, "script": script, "install": _INSTALL[shell]}
    print_result(data, [], lines, as_json=json, quiet=quiet, verbatim=True)
