"""``darkroom embed`` and ``darkroom search``: find pictures by words, or by another picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer, usage
from darkroom.app.output import SUFFIXES
from darkroom.app.progress import Progress
from darkroom.app.terminal import say, table, waiting

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.vision.encoder import Encoder
    from darkroom.vision.search import Match

EMBED = """Examples:

darkroom train clip-flickr8k.toml --data flickr8k

darkroom embed photos --model runs/clip-flickr8k/model
"""
SEARCH = """Examples:

darkroom search photos "dogs on the grass" --grid dogs.png

darkroom search photos photos/dog.jpg --count 4 --json
"""
TRAINED = "runs/clip-flickr8k/model"  # where `darkroom train clip-flickr8k.toml` puts it
CELL = 224  # pixels of a side, of the pictures in a grid


def add_to(app: typer.Typer) -> None:
    """Register both verbs."""
    app.command("embed", epilog=EMBED + "\n" + EXIT_CODES)(embed)
    app.command("search", epilog=SEARCH + "\n" + EXIT_CODES)(search)


def embed(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Pictures, at any depth: PNG, JPEG, WebP.")
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="What `darkroom train` made of a clip recipe.")
    ] = TRAINED,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.safetensors", help="Default: an index inside of DIR."),
    ] = None,
    device: values.Device = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Look at every picture of a folder once, so that `darkroom search` can find it.

    Pictures that cannot be read are named and left out.
    """
    from darkroom.errors import DataError
    from darkroom.vision.search import NAME, Index, pictures_in
    from darkroom.vision.search import embed as embed_pictures

    paths = pictures_in(folder) if _is_folder(folder) else []
    if not paths:
        raise DataError(f"{folder}: no PNG, JPEG or WebP picture in it; check the path")
    if out is not None and out.suffix != ".safetensors":
        raise usage(f"{out.name}: an index is a .safetensors file", "--out")
    encoder = _encoder(model, device)
    answer: Answer = ctx.obj
    skipped: list[dict[str, str]] = []
    found = []
    with Progress("embed", len(paths), "picture") as bar:
        for picture in embed_pictures(encoder, paths):
            if picture.vector is None:
                bar.say(f"left out: {picture.problem}")
                skipped.append({"path": str(picture.path), "problem": picture.problem})
            else:
                found.append(picture)
            bar.advance()
    answer.fields["skipped"] = skipped
    if not found:
        raise DataError(f"{folder}: none of its {len(paths)} pictures can be read")
    import torch

    names = tuple(str(picture.path.relative_to(folder)) for picture in found)
    vectors = torch.stack([picture.vector for picture in found])
    name = str(Path(model).absolute()) if Path(model).exists() else model
    path = Index(folder.absolute(), names, vectors, name).save((out or folder / NAME).absolute())
    answer.fields |= {"index": str(path), "pictures": len(found), "width": vectors.shape[1]}
    said = f", {len(skipped)} left out" if skipped else ""
    say(f"{path}: {len(found)} pictures{said}")


def search(
    ctx: typer.Context,
    where: Annotated[
        Path,
        typer.Argument(metavar="DIR|INDEX", help="What `darkroom embed` has looked at or written."),
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words, or the file of a picture.")],
    count: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="How many pictures, best first.")
    ] = 9,
    grid: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw them in one picture, too.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="Default: the one that made the index.")
    ] = "",
    device: values.Device = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show the pictures of a folder that fit QUERY best."""
    from darkroom.vision.search import Index
    from darkroom.vision.search import search as find

    if not query.strip():
        raise usage("QUERY is empty; say what to look for")
    if grid is not None and grid.suffix.lower() not in SUFFIXES:
        raise usage(f"{grid.name}: pictures are written as {', '.join(SUFFIXES)}", "--grid")
    if not where.is_file():
        _is_folder(where)
    index = Index.load(where)
    matches = find(index, _vector(_encoder(model or index.model, device), query), count)
    answer: Answer = ctx.obj
    answer.fields |= {
        "query": query,
        "pictures": len(index.paths),
        "matches": [{"path": str(m.path), "score": round(m.score, 4)} for m in matches],
    }
    if not json:
        rows = ((str(i), f"{m.score:.3f}", str(m.path)) for i, m in enumerate(matches, 1))
        table(("", "SCORE", "PICTURE"), rows)
    if grid is not None:
        answer.fields["grid"] = str(grid)
        _draw(matches, grid)
        say(f"{grid}: drawn")


def _is_folder(path: Path) -> bool:
    from darkroom.errors import ModelNotFoundError

    if not path.exists():
        raise ModelNotFoundError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise ModelNotFoundError(f"{path}: is a file, expected a folder of pictures")
    return True


def _encoder(model: str, device: str | None) -> "Encoder":
    from darkroom.app.session import usable_device
    from darkroom.errors import ModelNotFoundError
    from darkroom.vision.encoder import open_encoder

    if model == TRAINED and not Path(model).exists():
        raise ModelNotFoundError(
            f"{model}: no model there yet; train one with `darkroom train clip-flickr8k.toml`, "
            "or give --model"
        )
    with waiting(f"loading {model}"):
        return open_encoder(model, usable_device(device))


def _vector(encoder: "Encoder", query: str) -> "Tensor":
    path = Path(query)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return encoder.images(encoder.read(path)[None])[0]
    return encoder.texts([query])[0]


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
