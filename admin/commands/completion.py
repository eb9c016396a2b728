"""`timemachine completion`: the script that makes a shell complete commands and names."""

import click
from click.shell_completion import ShellComplete, get_completion_class

from admin.examples import ExampleCommand

PROGRAM = "timemachine"
_VARIABLE = "_TIMEMACHINE_COMPLETE"


@click.command(
    cls=ExampleCommand,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=[
        """eval "$(timemachine completion bash)"      # in ~/.bashrc; bash 4.4 or newer""",
        """eval "$(timemachine completion zsh)"       # in ~/.zshrc, after compinit""",
        """timemachine completion fish | source      # in ~/.config/fish/config.fish""",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    One line in the shell's rc file is enough. Names of databases, collections and routes are
    asked of the server; when it does not answer within a second, none are offered.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(context.find_root().command, {}, PROGRAM, _VARIABLE)
    # Not bash's own method, which runs bash to look at its version.
    click.echo(ShellComplete.source(made))
