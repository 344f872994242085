"""The command ``darkroom``: its verbs, and how a run of it begins and ends.

Importing this must stay cheap: ``--help`` and completion answer without torch. Verbs import what
they use when they run.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from darkroom.app.commands import bench, doctor, generate, inspect, models, train
from darkroom.app.outcome import EXIT_CODES, Answer, report
from darkroom.errors import CancelledError

app = typer.Typer(
    name="darkroom",
    help="Latent diffusion in one small, strict library: pictures from prompts.",
    epilog=f'Start with: darkroom generate "a red apple"\n\n{EXIT_CODES}',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"darkroom {version('darkroom-studio')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    """Hold the options of ``darkroom`` itself."""


for verb in (generate, inspect, doctor, bench, train):
    verb.add_to(app)
models.add_to(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing but ``SystemExit`` escapes."""
    answer = Answer(wanted="--json" in arguments)
    command: Any = typer.main.get_command(app)
    try:
        # typer itself turns Ctrl-C and --help into a returned exit code
        code = command.main(
            list(arguments), prog_name="darkroom", standalone_mode=False, obj=answer
        )
        code = code if isinstance(code, int) else 0
        if code == 130:
            code = report(KeyboardInterrupt(), answer)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the message is the whole help page
            sys.stderr.write(str(error) + "\n")
            return 2
        code = report(error, answer)
    except KeyboardInterrupt as error:
        code = report(error, answer)
    if answer.fields:
        answer.print()
    return code


def main() -> None:
    """Entry point of the ``darkroom`` script."""

    def stop(number: int, frame: object) -> None:
        raise CancelledError("stopped by a signal (SIGTERM); complete files stay")

    signal.signal(signal.SIGTERM, stop)
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output has gone: nobody to tell
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code) if code == 130 else sys.exit(code)
    os._exit(code)
