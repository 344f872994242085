"""The command ``darkroom``: its verbs, and how a run of it begins and ends.

Importing this must stay cheap: ``--help`` and completion answer without torch. Verbs import what
they use when they run.
"""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from darkroom.app.commands import (
    bench,
    classify,
    control,
    data,
    doctor,
    edit,
    generate,
    grid,
    inspect,
    models,
    search,
    segment,
    train,
)
from darkroom.app.help import shorten
from darkroom.app.outcome import EXIT_CODES, Answer, help_option, report, usage
from darkroom.errors import CancelledError

PATIENCE = 4.0  # seconds after SIGTERM in which a verb may tidy up
STOPPED = "stopped by a signal (SIGTERM); complete files stay"

app = typer.Typer(
    name="darkroom",
    help="Latent diffusion in one small, strict library: pictures from prompts.",
    epilog=f'Start with: darkroom generate "a red apple"\n\n{EXIT_CODES}',
    no_args_is_help=True,
    add_completion=False,  # typer's own two options cost an import of pydantic on every run
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"darkroom {version('darkroom-studio')}")
        raise typer.Exit


def _install(ctx: typer.Context, param: Any, asked: bool) -> None:
    if asked:
        from typer.completion import install_callback

        install_callback(ctx, param, _shell())


def _show(ctx: typer.Context, param: Any, asked: bool) -> None:
    if asked:
        from typer.completion import show_callback

        show_callback(ctx, param, _shell())


def _shell() -> str:
    """The shell that the command was typed into, else the user's usual one."""
    import shellingham

    try:
        return shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        name = os.path.basename(os.environ.get("SHELL", ""))
        if name not in ("bash", "zsh", "fish"):
            raise usage("cannot tell which shell this is; set SHELL=/bin/bash") from None
        return name


@app.callback(add_help_option=False)
def options(
    asked: Annotated[bool, help_option()] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            expose_value=False,
            help="Say which version this is.",
        ),
    ] = False,
    install_completion: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            callback=_install,
            is_eager=True,
            expose_value=False,
            help="Teach this shell to complete verbs, flags and names.",
        ),
    ] = False,
    show_completion: Annotated[
        bool,
        typer.Option(
            "--show-completion",
            callback=_show,
            is_eager=True,
            expose_value=False,
            help="Print the script that --install-completion would install.",
        ),
    ] = False,
) -> None:
    """Hold the options of ``darkroom`` itself."""


for verb in (generate, edit, control, grid, inspect, doctor, bench, train, classify, search):
    verb.add_to(app)
segment.add_to(app)
models.add_to(app)
data.add_to(app)
shorten(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; only a broken pipe escapes."""
    answer = Answer(wanted="--json" in arguments)
    if "_DARKROOM_COMPLETE" in os.environ:  # the shell asks for completions
        from typer.completion import completion_init  # pyright: ignore[reportPrivateImportUsage]

        completion_init()
    command: Any = typer.main.get_command(app)
    try:
        # typer itself turns Ctrl-C and --help into a returned exit code
        code = command.main(
            list(arguments), prog_name="darkroom", standalone_mode=False, obj=answer
        )
        code = code if isinstance(code, int) else 0
        if code == 130:
            code = report(KeyboardInterrupt(), answer)
    except BrokenPipeError:  # the reader of our output has gone: nobody to tell
        raise
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


def _mend_streams() -> None:
    """Give closed streams (``>&-``) a place, and let names print that are no UTF-8.

    Whatever is opened next would otherwise become stdout, and be written into.
    """
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BytesIO())
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
            os.dup2(stream.fileno(), number)
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # in JSON, too, a valid escape


def _end_soon() -> None:
    """End within ``PATIENCE`` seconds, though something may hold on to the signal's exception.

    What is unfinished is removed by the next run. The alarm is the system's: it ends the process
    even while a long operation keeps Python from running.
    """

    def end() -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"error: {STOPPED}\n".encode())
        os._exit(CancelledError.exit_code)

    if not any(thread.name == "end" for thread in threading.enumerate()):
        timer = threading.Timer(PATIENCE, end)
        timer.name, timer.daemon = "end", True
        timer.start()
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(PATIENCE) + 1)


def main() -> None:
    """Entry point of the ``darkroom`` script."""

    def stop(number: int, frame: object) -> None:
        _end_soon()
        raise CancelledError(STOPPED)

    signal.signal(signal.SIGTERM, stop)
    _mend_streams()
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except CancelledError:  # a second signal, or one while the first was being reported
        code = CancelledError.exit_code
    except BrokenPipeError:
        code = 1
    except OSError as error:  # a full disk behind stdout
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: stdout: {error.strerror}; what was printed is not complete\n")
        os._exit(1)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code) if code == 130 else sys.exit(code)
    os._exit(code)
