"""``darkroom classify``: which of some labels fits each picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer, usage
from darkroom.app.progress import Progress
from darkroom.app.seeing.opening import EncoderName, encoder, introduce, picture_file
from darkroom.app.terminal import is_live, say, table
from darkroom.names import ENCODER_MODEL

if TYPE_CHECKING:
    from darkroom.vision.classify import Classified, Labels
    from darkroom.vision.encoder import Encoder
    from darkroom.weights.knowledge import Knowledge

EXAMPLES = """Examples:

darkroom classify cat.png --labels "cat,dog,red car"

darkroom classify photos --labels-file labels.txt --template photos --chart bars.png

darkroom classify a.png b.png --labels "a red apple,a house" --template "{}" --matrix fit.png

darkroom classify cifar10-test.tar --evaluate --matrix confusion.png
"""
DRAWN = 64  # pictures at most, in a chart or a matrix
UNLIKELY = 5  # pictures at most that are named as fitting no label
BAR = 24  # characters of a whole bar
EIGHTHS = " ▏▎▍▌▋▊▉█"


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("classify", epilog=EXAMPLES + "\n" + EXIT_CODES)(classify)


def classify(
    ctx: typer.Context,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Pictures; a folder stands for all within it."),
    ],
    labels: Annotated[
        str, typer.Option(metavar="A,B,C", help="What they may show, separated by commas.")
    ] = "",
    labels_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same, one a line.")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What is said with a label in place of {}, such as 'a photo of a {}'; several "
            "are averaged. Or a set by its name: plain, photo, photos, drawings.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How many labels, likeliest first.")
    ] = 5,
    chart: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw each picture with its bars beside it."),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw how well each label fits each picture; with --evaluate, which class was "
            "taken for which.",
        ),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="IMAGE is a data set of class folders or a tar of them: say how often the "
            "likeliest label is right. Labels, if given, are in the order of its classes.",
        ),
    ] = False,
    model: EncoderName = ENCODER_MODEL,
    device: values.Device = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say which labels fit pictures best, without training.

    Probabilities are of one of the labels being right. Pictures of a folder that cannot be read
    are named and left out.
    """
    from darkroom.vision.classify import TEMPLATES, check_labels, check_templates, open_labels

    for path, flag in ((chart, "--chart"), (matrix, "--matrix")):
        picture_file(path, flag)
    templates = check_templates(template or TEMPLATES)
    names = _labels(labels, labels_file)
    answer: Answer = ctx.obj
    if evaluate:
        from darkroom.app.seeing.evaluating import evaluate as measure

        if chart or len(images) != 1:
            raise usage("--evaluate takes one data set, and draws with --matrix alone")
        introduce(model, answer, *names)
        answer.fields |= measure(
            images[0], names, templates, lambda: encoder(model, device), matrix, json
        )
        return
    if not names:
        raise usage("no labels; say what pictures may show: --labels 'cat,dog'")
    check_labels(names)
    paths, alone = _pictures(images)
    known = introduce(model, answer, *names)
    opened = encoder(model, device)
    found = open_labels(opened, names, templates)
    done = _classified(opened, paths, found, top, alone)
    good = [one for one in done if not one.problem]
    answer.fields |= {
        "model": opened.name,
        "labels": list(found.names),
        "templates": templates,
        "pictures": [_fields(one, known) for one in good],
        "skipped": [{"path": str(o.image), "problem": o.problem} for o in done if o.problem],
    }
    if not good:
        from darkroom.errors import DataError

        raise DataError(f"none of the {len(done)} pictures can be read")
    if not json:
        table(("PICTURE", "LABEL", "PROBABILITY", *[""] * _drawn()), _rows(good))
    _say_unlikely(good, known)
    if chart is not None:
        _chart(good, chart)
        answer.fields["chart"] = str(chart)
    if matrix is not None:
        _matrix(opened, good, found, matrix)
        answer.fields["matrix"] = str(matrix)


def _labels(text: str, file: Path | None) -> list[str]:
    if text and file:
        raise usage("--labels and --labels-file say the same; give one of them")
    if file:
        return list(values.prompts_file(file, "label"))
    return text.split(",") if text else []


def _pictures(images: list[Path]) -> tuple[list[Path], bool]:
    """Every picture, and whether each was named by itself.

    Raises:
        DataError: a folder holds none.
    """
    from darkroom.errors import DataError
    from darkroom.vision.search import pictures_in

    found: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = [path / file.path for file in pictures_in(path)]
            if not inside:
                raise DataError(f"{path}: no PNG, JPEG or WebP picture in it; check the path")
            found += inside
        else:
            found.append(path)
    return found, not any(path.is_dir() for path in images)


def _classified(
    opened: "Encoder", paths: list[Path], labels: "Labels", top: int, alone: bool
) -> "list[Classified]":
    """In order; a picture named by itself must be readable if it is the only one."""
    from darkroom.errors import ImageError
    from darkroom.vision.classify import classify as look_at

    done: list[Classified] = []
    with Progress("classify", len(paths), "picture") as bar:
        for one in look_at(opened, paths, labels, top=top):
            if one.problem and alone and len(paths) == 1:
                raise ImageError(one.problem)
            if one.problem:
                bar.say(f"left out: {one.problem}")
            done.append(one)
            bar.advance()
    return done


def _is_likely(one: "Classified", known: "Knowledge | None") -> bool | None:
    """Whether a label fits as well as what the model knows fits its name; None: unknown."""
    if known is None or known.likely is None:
        return None
    return max(label.cosine for label in one.labels) >= known.likely


def _say_unlikely(done: "list[Classified]", known: "Knowledge | None") -> None:
    """Name the pictures that none of the labels fits."""
    unlikely = [one for one in done if _is_likely(one, known) is False]
    if not unlikely or known is None:
        return
    names = ", ".join(str(one.image) for one in unlikely[:UNLIKELY])
    more = len(unlikely) - UNLIKELY
    best = max(label.cosine for one in unlikely for label in one.labels)
    say(
        f"note: no label is likely for {names}{f' and {more} more' if more > 0 else ''}: the best "
        f"cosine is {best:.2f}, and what {known.name} knows reaches {known.likely:.2f}; "
        "probabilities only compare the labels",
        "yellow",
    )


def _fields(one: "Classified", known: "Knowledge | None") -> dict[str, Any]:
    labels = [
        {"label": label.name, "probability": round(label.probability, 6)}
        | {"cosine": round(label.cosine, 4)}
        for label in one.labels
    ]
    fields = {"path": str(one.image), "labels": labels}
    likely = _is_likely(one, known)
    return fields if likely is None else fields | {"likely": likely}


def _drawn() -> bool:
    import sys

    return is_live(sys.stdout)


def _rows(done: "list[Classified]") -> list[tuple[str, ...]]:
    """A row for each label; on a terminal, with bars, and each picture named once."""
    rows: list[tuple[str, ...]] = []
    for one in done:
        for i, label in enumerate(one.labels):
            row = (str(one.image), label.name, f"{label.probability:.1%}")
            if _drawn():
                row = ("" if i else row[0], *row[1:], _bar(label.probability))
            rows.append(row)
    return rows


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * BAR * 8), 8)
    return "█" * whole + EIGHTHS[rest].strip()


def _shown(done: "list[Classified]", what: str) -> "list[Classified]":
    if len(done) > DRAWN:
        say(f"{what}: the first {DRAWN} of {len(done)} pictures")
    return done[:DRAWN]


def _chart(done: "list[Classified]", path: Path) -> None:
    from darkroom.app.seeing.evaluating import write_picture
    from darkroom.images import open_image
    from darkroom.vision.plots import bar_sheet

    cells = [
        (
            open_image(one.image),
            [(label.name, label.probability) for label in one.labels],
            Path(str(one.image)).name,
        )
        for one in _shown(done, "chart")
    ]
    write_picture(bar_sheet(cells), path)


def _matrix(opened: "Encoder", done: "list[Classified]", labels: "Labels", path: Path) -> None:
    from darkroom.app.seeing.evaluating import write_picture
    from darkroom.images import open_image
    from darkroom.vision.plots import heat_map

    images = [one.image for one in _shown(done, "matrix")]
    cosines = labels.vectors @ opened.encode_image(images).T
    pictures = [open_image(image) for image in images]
    title = f"cosines by {Path(opened.name).name}"
    write_picture(heat_map(cosines.tolist(), labels.names, pictures=pictures, title=title), path)
