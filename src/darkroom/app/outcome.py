"""How a command ends: its exit code, its one line of error, its one JSON object.

0 done, 1 failed, 2 usage, 3 model or file, 4 out of memory, 5 cancelled, 130 Ctrl-C.
"""

import errno
import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from typing import Any

import typer

from darkroom.atomic import DISK
from darkroom.errors import DarkroomError

EXIT_CODES = "Ends with 0 done, 1 failed, 2 usage, 3 file, 4 memory, 5 cancelled, 130 Ctrl-C."
LONGEST = 2000  # letters of a line
UsageError: Any = typer.BadParameter.__mro__[1]  # public in no version of typer under one name
ClickException: Any = UsageError.__mro__[1]


@dataclass
class Answer:
    """What a verb found out; printed as one object on stdout when ``--json`` was given."""

    wanted: bool = False
    fields: dict[str, Any] = field(default_factory=dict)

    def print(self) -> None:
        """Write the object, if it is wanted."""
        if self.wanted:
            sys.stdout.write(json.dumps(self.fields, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()


def help_option() -> Any:
    """``--help`` of a group of verbs; typer's own imports pydantic to find that it is absent."""

    def show(ctx: typer.Context, asked: bool) -> None:
        if asked:
            typer.echo(ctx.get_help())
            raise typer.Exit

    return typer.Option(
        "--help",
        "-h",
        callback=show,
        is_eager=True,
        expose_value=False,
        help="Show this message and exit.",
    )


def usage(message: str, flag: str = "") -> Exception:
    """The error of a wrong combination of arguments, for ``raise``."""
    return UsageError(f"{flag}: {message}" if flag else message)


def exit_code(error: BaseException) -> int:
    """The exit code that an exception stands for."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return 130
    if isinstance(error, DarkroomError):
        return error.exit_code
    if isinstance(error, ClickException):
        return 2
    if _is_out_of_memory(error):
        return 4
    if isinstance(error, OSError):
        # a full or failing disk is a failure of the run; a path that is wrong is a wrong path
        return 1 if error.errno in (*DISK, errno.EPIPE) else 3
    return 2 if isinstance(error, ValueError) else 1


def one_line(error: BaseException) -> str:
    """What went wrong and what to do, without a line break."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted"
    if isinstance(error, ClickException):
        usage_error: Any = error
        text = _flat(usage_error.format_message())
        verb = getattr(getattr(error, "ctx", None), "command_path", None) or "darkroom"
        return f"{text}{'' if text.endswith(('.', '?')) else ';'} see `{verb} --help`"
    if isinstance(error, DarkroomError):
        return _short(_flat(str(error))) or type(error).__name__
    if _is_out_of_memory(error):
        return (
            "out of memory; try a smaller --size, --count 1, --dtype float16, or --device cpu "
            f"({_flat(str(error))[:160]})"
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        remedy = {
            errno.ENOENT: "; check the path",
            errno.EACCES: "; check its permissions",
            errno.ENOSPC: "; free some space or choose another --out",
            errno.EDQUOT: "; free some space or choose another --out",
        }.get(error.errno or 0, "")
        return _flat(f"{where}{error.strerror or error}{remedy}")
    if isinstance(error, ValueError):
        return _flat(str(error))
    return (
        f"unexpected {type(error).__name__}: {_flat(str(error))[:300]}; "
        "run again with DARKROOM_DEBUG=1 for the traceback, and report it"
    )


def report(error: BaseException, answer: Answer) -> int:
    """Print the line (and the traceback if DARKROOM_DEBUG asks), and return the exit code."""
    code, line = exit_code(error), one_line(error)
    if os.environ.get("DARKROOM_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    answer.fields["error"] = line
    answer.fields["exit_code"] = code
    from darkroom.app.terminal import paint

    sys.stderr.write(f"{paint('error:', 'bold red')} {line}\n")
    return code


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # torch has no class of its own for the CPU's
    return type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)


def _short(line: str) -> str:
    """The line without its middle, where it quotes more of a file than anyone reads."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"


def _flat(text: str) -> str:
    return " ".join(text.split())
