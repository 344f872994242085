"""``darkroom embed``, ``search`` and ``dedupe``: look at pictures once, then find them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer, usage
from darkroom.app.output import SUFFIXES
from darkroom.app.progress import Progress
from darkroom.app.seeing.moving import move
from darkroom.app.seeing.opening import EncoderName, encoder, folder, introduce, picture_file
from darkroom.app.terminal import bytes_text, say, table, waiting
from darkroom.names import ENCODER_MODEL

if TYPE_CHECKING:
    from darkroom.vision.search import Index, Match
    from darkroom.vision.search.duplicates import Group

EMBED = """Examples:

darkroom embed photos

darkroom embed photos --model ViT-B-32.pt --out photos.index
"""
SEARCH = """Examples:

darkroom search photos "dogs on the grass" --grid dogs.png

darkroom search photos photos/dog.jpg --count 4 --json

darkroom search photos "at night" --image photos/dog.jpg --without snow
"""
DEDUPE = """Examples:

darkroom dedupe photos

darkroom dedupe photos --threshold 0.95 --move-to copies
"""
CELL = 224  # pixels of a side, of the pictures in a grid
WHERE = typer.Argument(metavar="DIR|INDEX", help="What `darkroom embed` has looked at or written.")
JSON = typer.Option("--json", help="One JSON object on stdout.")


def add_to(app: typer.Typer) -> None:
    """Register the three verbs."""
    app.command("embed", epilog=EMBED + "\n" + EXIT_CODES)(embed)
    app.command("search", epilog=SEARCH + "\n" + EXIT_CODES)(search)
    app.command("dedupe", epilog=DEDUPE + "\n" + EXIT_CODES)(dedupe)


def embed(
    ctx: typer.Context,
    pictures: Annotated[
        Path, typer.Argument(metavar="DIR", help="Pictures, at any depth: PNG, JPEG, WebP.")
    ],
    model: EncoderName = ENCODER_MODEL,
    out: Annotated[
        Path | None, typer.Option(metavar="INDEX", help="Default: an index inside of DIR.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Forget what is known: look at every picture.")
    ] = False,
    faiss: Annotated[
        bool,
        typer.Option("--faiss", help="Make lists, too, for `search --faiss` in many millions."),
    ] = False,
    device: values.Device = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Look at the pictures of a folder, so that `search` and `dedupe` can find them.

    Only those that are new or have changed are looked at, and what is gone is forgotten; stopped
    at any time, it goes on where it was. Pictures that cannot be read are named and left out.
    """
    from darkroom.errors import DataError
    from darkroom.vision.search import NAME, Index, Writer, pictures_in
    from darkroom.vision.search import embed as look_at

    place = folder(pictures)
    listing = pictures_in(place)
    if not listing:
        raise DataError(f"{pictures}: no PNG, JPEG or WebP picture in it; check the path")
    store = (out or place / NAME).absolute()
    answer: Answer = ctx.obj
    skipped: list[dict[str, str]] = []
    answer.fields |= {"index": str(store), "skipped": skipped}
    introduce(model, answer)
    opened = encoder(model, device)
    if again:
        _forget(store)
    with Writer(store, place, opened) as writer:
        changes = writer.changes(listing)
        with Progress("embed", len(changes.new), "picture") as bar:
            for one in look_at(writer, opened, place, changes.new):
                if one.problem:
                    bar.say(f"left out: {one.problem}")
                    skipped.append({"path": str(pictures / one.file.path), "problem": one.problem})
                bar.advance()
        writer.drop(changes.gone)
        writer.compact()
        count, width = len(writer), writer.width
    added = len(changes.new) - len(skipped)
    answer.fields |= {"pictures": count, "width": width, "model": opened.name}
    answer.fields |= {"added": added, "unchanged": changes.same, "gone": len(changes.gone)}
    if not count:
        raise DataError(f"{pictures}: none of its {len(listing)} pictures can be read")
    parts = (f"{count} pictures", f"{added} new or changed" * (added < count))
    gone = (f"{len(changes.gone)} gone", f"{len(skipped)} left out")
    told = [*filter(None, parts), *(text for text in gone if text[:2] != "0 ")]
    say(f"{store}: {', '.join(told)}")
    if faiss:
        from darkroom.vision.search.approximate import build

        with waiting("making lists"):
            answer.fields["lists"] = str(build(Index.open(store)))


def search(
    ctx: typer.Context,
    where: Annotated[Path, WHERE],
    query: Annotated[
        str | None, typer.Argument(metavar="[QUERY]", help="Words, or the file of a picture.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Like this picture, too; can be given again."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="Unlike these words; can be given again."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="How many pictures, best first.")
    ] = 9,
    grid: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw them in one picture, too.")
    ] = None,
    faiss: Annotated[
        bool,
        typer.Option("--faiss", help="Look into lists of `embed --faiss`; may miss some."),
    ] = False,
    model: EncoderName = "",
    device: values.Device = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Show the pictures of a folder that fit QUERY best.

    The model is the one that made the index.
    """
    from darkroom.vision.search import Index
    from darkroom.vision.search import query as vector_of
    from darkroom.vision.search import search as find

    words, pictures = _asked(query, image)
    if not words and not pictures:
        raise usage("QUERY is empty; say what to look for")
    picture_file(grid, "--grid")
    if not where.is_file():
        folder(where)
    index = Index.open(where)
    answer: Answer = ctx.obj
    known = introduce(model or index.model, answer, *words, *(without or ()))
    opened = encoder(model or index.model, device)
    index.check(opened)
    lists = None
    if faiss:
        from darkroom.vision.search.approximate import Lists

        lists = Lists(index)
    matches = find(index, vector_of(opened, words, pictures, without or ()), count, lists)
    if known and known.likely and words and not pictures and not without:
        best = max((match.score for match in matches), default=0.0)
        answer.fields["likely"] = best >= known.likely
        if best < known.likely:
            say(
                f"note: nothing here is likely to show {query!r}: the best scores {best:.2f}, and "
                f"what {known.name} knows reaches {known.likely:.2f}",
                "yellow",
            )
    answer.fields |= {
        "query": query or "",
        "images": [str(path) for path in pictures],
        "without": without or [],
        "model": index.model,
        "pictures": len(index),
        "matches": [{"path": str(m.path), "score": round(m.score, 4)} for m in matches],
    }
    if not json:
        rows = ((str(i), f"{m.score:.3f}", str(m.path)) for i, m in enumerate(matches, 1))
        table(("", "SCORE", "PICTURE"), rows)
    if grid is not None:
        answer.fields["grid"] = str(grid)
        _draw(matches, grid)
        say(f"{grid}: drawn")


def dedupe(
    ctx: typer.Context,
    where: Annotated[Path, WHERE],
    threshold: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="COSINE", help="How alike pictures must be."),
    ] = 0.98,
    identical: Annotated[
        bool, typer.Option("--identical", help="Only files with the same bytes.")
    ] = False,
    move_to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Move all but the one to keep of each group there."),
    ] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """List pictures that show the same, and which of them to keep.

    That is the one with the most pixels, then the most bytes. No file is moved unless --move-to
    says where, and none is deleted. Needs `darkroom embed` first, and no model.
    """
    from darkroom.vision.search import Index
    from darkroom.vision.search.duplicates import unchanged

    if not where.is_file():
        folder(where)
    index = Index.open(where)
    if move_to is not None and move_to.absolute().is_relative_to(index.folder.absolute()):
        raise usage(f"{move_to}: lies within the pictures; choose another folder", "--move-to")
    groups: list[Group] = []
    stale: list[str] = []
    for group in _groups(index, threshold, identical):
        members = [group.keep, *(copy.entry for copy in group.copies)]
        old = {e.file.path for e in members if not unchanged(index.folder, e)}
        stale += sorted(old)
        copies = [copy for copy in group.copies if copy.entry.file.path not in old]
        if copies and group.keep.file.path not in old:
            groups.append(group._replace(copies=copies))
    for name in stale:
        say(f"left out: {name}: has changed since it was embedded, or is gone; embed again")
    answer: Answer = ctx.obj
    found = [copy.entry.file for group in groups for copy in group.copies]
    answer.fields |= {
        "pictures": len(index),
        "copies": len(found),
        "bytes": sum(file.bytes for file in found),
        "stale": stale,
        "groups": [_fields(index, group) for group in groups],
    }
    if groups and not json:
        table(("GROUP", "SIMILARITY", "PICTURE"), _rows(index, groups))
    size = bytes_text(answer.fields["bytes"])
    say(f"{len(found)} of {len(index)} pictures are copies ({size})")
    if move_to is not None and found:
        answer.fields["moved_to"] = str(move_to)
        move({index.folder / file.path: move_to / file.path for file in found})
        say(f"{move_to}: {len(found)} moved")


def _fields(index: "Index", group: "Group") -> dict[str, Any]:
    """JSON-ready."""
    copies = [
        {
            "path": str(index.folder / copy.entry.file.path),
            "similarity": round(copy.similarity, 4),
            "identical": copy.identical,
        }
        for copy in group.copies
    ]
    return {"keep": str(index.folder / group.keep.file.path), "copies": copies}


def _rows(index: "Index", groups: "list[Group]") -> Iterator[tuple[str, str, str]]:
    for number, group in enumerate(groups, 1):
        yield str(number), "keep", str(index.folder / group.keep.file.path)
        for copy in group.copies:
            said = "identical" if copy.identical else f"{copy.similarity:.3f}"
            yield str(number), said, str(index.folder / copy.entry.file.path)


def _groups(index: "Index", threshold: float, identical: bool) -> "list[Group]":
    from darkroom.vision.search import duplicates

    if identical:
        return duplicates.identical(index)
    groups: list[Group] = []
    with Progress("compare", len(index), "picture") as bar:
        for found in duplicates.duplicates(index, threshold):
            groups += found.groups
            bar.advance(found.done - bar.done)
    return groups


def _asked(query: str | None, image: list[Path] | None) -> tuple[list[str], list[Path]]:
    """Words and pictures; QUERY is either."""
    pictures = list(image or ())
    if query is None or not query.strip():
        return [], pictures
    path = Path(query)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return [], [path, *pictures]
    return [query], pictures


def _forget(store: Path) -> None:
    """Delete a store, if it is one."""
    from darkroom.vision.search.store import LIST

    if (store / LIST).is_file():
        import shutil

        shutil.rmtree(store)


def _draw(matches: "list[Match]", path: Path) -> None:
    """The matches in rows, best first, as near to a square as fits."""
    from PIL import Image

    from darkroom.atomic import atomic_write
    from darkroom.errors import ImageError
    from darkroom.images import grid
    from darkroom.vision.encoder import squared

    cells = []
    for match in matches:
        try:
            cells.append(Image.fromarray(squared(match.path, CELL).permute(1, 2, 0).numpy()))
        except ImageError as error:
            say(f"left out: {error}")
    if not cells:
        raise ImageError("none of the pictures found can be read any more; embed the folder again")
    with atomic_write(path) as file:
        grid(cells).save(file, SUFFIXES[path.suffix.lower()])
