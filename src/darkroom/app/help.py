"""Help on one screen of 80 columns: the options that are used most; ``--help-all`` shows them all.

Verbs that have many options are in ``MAIN``; the others show what they have.
"""

import textwrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from darkroom.app.outcome import EXIT_CODES

WIDTH = 80
MAIN = {  # the verb -> the names of its parameters on the short page, in order
    "generate": "prompt model negative size seed count steps guidance sampler image strength lora "
    "redraw out json",
    "edit": "image prompt mask select extend only_masked strength model negative seed count "
    "steps guidance out json",
    "control": "photo prompt kind hint net weight annotator fit model negative seed count "
    "steps out json",
    "grid": "prompt x y z ab model negative size seed steps guidance sampler out dry_run json",
    "segment": "images point box text everything candidates model to out label threshold json",
    "classify": "images labels labels_file template top chart matrix evaluate model json",
    "search": "where query image without count grid model json",
}
FEW = 12  # rows of a page that has room for a second example
INDENT = "  "
ALL = "--help-all"


class ShortCommand(TyperCommand):
    """A verb whose ``--help`` is short."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever, but for ``--help-all``, wherever it stands."""
        if ALL in args and not ctx.resilient_parsing:
            ctx.meta[ALL] = True
            typer.echo(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        if ctx.meta.get(ALL):
            super().format_help(ctx, formatter)
            return
        params: list[Any] = [param for param in self.params if not getattr(param, "hidden", False)]
        names = MAIN.get(_verb(ctx), "").split()
        shown = [param for name in names for param in params if param.name == name] or params
        usage = ctx.command_path, *(_argument(p) for p in params if not _is_option(p)), "[OPTIONS]"
        lines = [f"Usage: {' '.join(usage)}", "", *_sentence(self.help), ""]
        lines += _rows([(_called(param, ctx), getattr(param, "help", "")) for param in shown])
        lines += ["", *_examples(self.epilog, 1 if len(shown) > FEW else 2)]
        if len(shown) < len(params):
            lines.append(f"All {len(params)} options: {ctx.command_path} {ALL}")
        formatter.write("\n".join([*lines, *textwrap.wrap(EXIT_CODES, WIDTH)]) + "\n")


class ShortGroup(TyperGroup):
    """A group of verbs, one line each."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, verb.help or "") for name, verb in verbs if verb and not verb.hidden]
        options = [", ".join(_called(p, ctx) for p in self.params if p.name != "asked")]
        options = [text for text in options if text]
        lines = [f"Usage: {ctx.command_path} VERB ...", "", *_sentence(self.help), ""]
        lines += [*_rows(rows), "", *_examples(self.epilog, 1 if len(rows) > FEW else 2)]
        lines.append("; ".join([f"More: {ctx.command_path} VERB --help", *options[:1]]))
        formatter.write("\n".join([*lines, *textwrap.wrap(EXIT_CODES, WIDTH)]) + "\n")


def shorten(app: typer.Typer) -> None:
    """Give every verb and group of ``app`` its short page."""
    app.info.cls = ShortGroup
    for command in app.registered_commands:
        command.cls = ShortCommand
    for group in app.registered_groups:
        if group.typer_instance:
            group.cls = ShortGroup
            shorten(group.typer_instance)


def _verb(ctx: Any) -> str:
    """'generate' of 'darkroom generate'."""
    return ctx.command_path.partition(" ")[2]


def _is_option(param: Any) -> bool:
    return param.param_type_name == "option"


def _argument(param: Any) -> str:
    name = param.metavar or str(param.name).upper()
    return name if param.required or name.startswith("[") else f"[{name}]"


def _called(param: Any, ctx: Any) -> str:
    """'--seed N' of an option, 'PROMPT' of an argument."""
    if not _is_option(param):
        return (param.metavar or str(param.name).upper()).strip("[]")
    flags = "/".join([*param.opts[:1], *param.secondary_opts])
    if param.is_flag:
        return flags
    return f"{flags} {param.metavar or 'N'}"


def _rows(rows: list[tuple[str, str]]) -> list[str]:
    """Two columns, a line each."""
    left = min(max((len(name) for name, _ in rows), default=0), 30)
    lines = []
    for name, text in rows:
        room = WIDTH - len(INDENT) * 2 - max(left, len(name))
        short = textwrap.shorten(" ".join((text or "").split()), 1000)
        if len(short) > room:
            first = short.partition(". ")[0].partition("; ")[0].removesuffix(".") + "."
            short = textwrap.shorten(first, room, placeholder=" ...")
        lines.append(f"{INDENT}{name:<{left}}{INDENT}{short}".rstrip())
    return lines


def _sentence(text: str | None) -> list[str]:
    """The first one."""
    first = " ".join((text or "").split()).partition(". ")[0].removesuffix(".") + "."
    return textwrap.wrap(first, WIDTH)


def _examples(epilog: str | None, count: int) -> list[str]:
    """The first commands of an epilog."""
    text = (epilog or "").replace(EXIT_CODES, "")
    found = [line.strip() for line in text.splitlines() if "darkroom " in line]
    found = [line.partition(": ")[2] if line.startswith(("Exa", "Sta")) else line for line in found]
    short = [line for line in found if len(line) <= WIDTH - 11] or found
    return [
        f"{'Example: ' if not i else '         '}{line}" for i, line in enumerate(short[:count])
    ]
