"""``darkroom data``: look at a data set before anything is trained on it."""

from typing import Annotated, Any

import typer

from darkroom.app.outcome import EXIT_CODES, Answer, help_option
from darkroom.app.progress import Progress
from darkroom.app.terminal import say, table

EXAMPLES = """Examples:

darkroom data check flickr8k

darkroom data check "laion/{00000..00041}.tar" --size 256 --json
"""
SHOWN = 5  # names of each problem


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    group = typer.Typer(no_args_is_help=True)

    @group.callback(add_help_option=False)
    def options(asked: Annotated[bool, help_option()] = False) -> None:
        """Look at data sets: what is in them, what is wrong with them."""

    group.command("check", epilog=EXAMPLES + "\n" + EXIT_CODES)(check)
    app.add_typer(group, name="data")


def check(
    ctx: typer.Context,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A folder, a tar, or tars as {000..041}.tar.")
    ],
    size: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Pictures with a shorter side below this are tiny."),
    ] = 16,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="train, validation or test, where there are such.")
    ] = "train",
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List unreadable, tiny, duplicate, turned, odd and caption-less items of a data set.

    Ends with 3 if not one item is usable; anything less is a warning.
    """
    import os

    from darkroom.errors import DataError
    from darkroom.training.data import check as checking
    from darkroom.training.data.opening import SPLITS, open_data

    if split not in SPLITS:
        raise typer.BadParameter(
            f"{split!r}: expected one of {', '.join(SPLITS)}", param_hint="split"
        )
    pictures = open_data(path, split)
    threads = min(8, os.cpu_count() or 1)
    with Progress("check", len(pictures.unique()), "item") as bar:
        found = checking.check(pictures, size, threads, bar.advance)
    answer: Answer = ctx.obj
    problems = found.problems()
    answer.fields |= {
        "path": path,
        "kind": pictures.kind,
        "items": found.items,
        "epoch": len(pictures),
        "usable": found.usable,
        "classes": list(pictures.classes),
        "captions": pictures.captioned,
        "shorter_side_from": found.smallest,
        "longer_side_to": found.largest,
        "problems": {title.replace(" ", "_"): names for title, names in problems.items()},
    }
    if not json:
        table(("", path), [*_facts(answer.fields), *_rows(problems)])
    if not found.usable:
        raise DataError(f"{path}: none of {found.items:,} items is usable; nothing to train on")
    troubled = {title: len(names) for title, names in problems.items() if names}
    if troubled:
        listed = ", ".join(f"{count:,} {title}" for title, count in troubled.items())
        say(f"note: {listed}", "yellow")


def _facts(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """What the set is."""
    items, epoch = fields["items"], fields["epoch"]
    repeated = f" ({epoch:,} an epoch with repeats)" if epoch != items else ""
    rows = [
        ("kind", fields["kind"]),
        ("items", f"{items:,}{repeated}"),
        ("usable", f"{fields['usable']:,}"),
        ("captions", "yes" if fields["captions"] else "no"),
    ]
    if fields["classes"]:
        shown = ", ".join(fields["classes"][:12])
        more = len(fields["classes"]) - 12
        rows.append(("classes", f"{shown}, and {more} more" if more > 0 else shown))
    if fields["usable"]:
        sides = f"from {fields['shorter_side_from']} to {fields['longer_side_to']} pixels"
        rows.append(("sides", sides))
    return rows


def _rows(problems: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Each problem with its count and a few names."""
    rows = []
    for title, names in problems.items():
        shown = [
            f"{name} (as {why})" if "duplicates" in title else f"{name} ({why})" if why else name
            for name, why in list(names.items())[:SHOWN]
        ]
        more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
        rows.append((title, f"{len(names):,}{': ' * bool(names)}{', '.join(shown)}{more}"))
    return rows
