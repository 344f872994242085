"""``darkroom data``: bring a data set, and look at it before anything is trained on it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app.outcome import EXIT_CODES, Answer, help_option
from darkroom.app.progress import Progress
from darkroom.app.terminal import say, table

EXAMPLES = """Examples:

darkroom data check flickr8k

darkroom data check "laion/{00000..00041}.tar" --size 256 --json
"""
FETCH = """Examples:

darkroom data fetch mnist

darkroom data fetch noto-emoji --out data
"""
SHOWN = 5  # names of each problem


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    group = typer.Typer(no_args_is_help=True)

    @group.callback(add_help_option=False)
    def options(asked: Annotated[bool, help_option()] = False) -> None:
        """Look at data sets, and bring public ones."""

    group.command("check", epilog=EXAMPLES + "\n" + EXIT_CODES)(check)
    group.command("fetch", epilog=FETCH + "\n" + EXIT_CODES)(fetch)
    app.add_typer(group, name="data")


def _complete_set(incomplete: str) -> list[str]:
    from darkroom.training.data.public import SETS

    return [one.name for one in SETS if one.name.startswith(incomplete)]


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


def fetch(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=_complete_set, help="A set; without one they are listed."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to; recipes look into data.")
    ] = Path("data"),
    mirror: Annotated[
        str,
        typer.Option(
            metavar="URL|DIR", help="Take the files from there, by their names; hashes are checked."
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Bring a public data set from its address, check it and unpack it.

    Run it again after an interruption: it goes on where it stopped.
    """
    from darkroom.training.data.public import SETS
    from darkroom.training.data.public import fetch as public

    answer: Answer = ctx.obj
    if name is None:
        answer.fields["sets"] = [
            {"name": one.name, "title": one.title, "licence": one.licence, "how": one.how}
            for one in SETS
        ]
        if not json:
            table(("NAME", "WHAT", "LICENCE"), ((s.name, s.title, s.licence) for s in SETS))
        return
    one = public.public_set(name)
    paths = [str(out / made) for made in one.made]
    answer.fields |= {"name": name, "licence": one.licence, "paths": paths}
    if public.is_here(one, out):
        say(f"{', '.join(paths)}: here already; delete it to fetch it again")
        return
    say(f"{name}: {one.title}; licence: {one.licence}")
    for source in one.sources:
        if not source.sha256:
            say(f"note: {source.name}: no hash is stated by its source; it is recorded", "yellow")
    bar: Progress | None = None
    try:
        for step in public.fetch(one, out, mirror):
            unit = "file" if step.what == "unpacking" else "bytes"
            if bar is None or bar.title != step.what:
                if bar:
                    bar.__exit__(None, None, None)
                bar = Progress(step.what, step.total or step.done, unit).__enter__()
            bar.total = max(bar.total, step.done)
            bar.advance(step.done - bar.done)
    finally:
        if bar:
            bar.__exit__(None, None, None)
    answer.fields["record"] = str(public.record_of(one, out))
    say(f"fetched {', '.join(paths)}; look at it: darkroom data check {paths[0]}")


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
