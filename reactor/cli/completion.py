"""The command `reactor completion`."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cyclopts import App

Shell = Literal["bash", "zsh", "fish"]


def add_completion(app: "App") -> None:
    """Let the app print what a shell needs to complete its commands and flags."""

    @app.command(sort_key=9, help_epilogue="")
    def completion(shell: Shell, /) -> None:
        """Print what a shell needs to complete the command.

        For bash: `reactor completion bash > ~/.local/share/bash-completion/completions/reactor`.

        Parameters
        ----------
        shell
            bash, zsh or fish.
        """
        print(app.generate_completion(shell=shell))
