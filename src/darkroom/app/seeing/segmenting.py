"""What ``darkroom segment`` does with each picture."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.app.outcome import Answer, usage
from darkroom.app.progress import Progress
from darkroom.app.seeing.opening import encoder, introduce
from darkroom.app.terminal import say, table, waiting
from darkroom.errors import DataError, ImageError
from darkroom.names import ENCODER_MODEL

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.masks import Mask
    from darkroom.vision.encoder import Encoder
    from darkroom.vision.export import Pictured, Writer
    from darkroom.vision.segment import Prompt

FILES = {  # the suffixes of formats that may be one file
    "coco": (".json",),
    "coco-polygons": (".json",),
    "labelstudio": (".json",),
    "labelstudio-brush": (".json",),
    "rle": (".json",),
    "csv": (".csv",),
    "png": (".png",),
    "labelmap": (".png",),
}
FAST = {"conf": "confidence", "iou": "overlap", "imgsz": "longest", "retina": "retina"}
OF_ONE = ("rle", "png", "labelmap")  # formats with files for each picture


@dataclass(frozen=True)
class Asked:
    """What to cut out, as it was said; options that were not given are None.

    Args:
        points: x, y, and whether it lies inside.
        boxes: left, top, right, bottom.
        words: options of --text.
        sam: of ``Automatic``, by its names.
        fast: of FastSAM, by the names of ``FAST``.
    """

    points: tuple[tuple[float, float, bool], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    text: str | None = None
    everything: bool = False
    candidates: bool = False
    label: str = ""
    outline: bool = False
    words: Mapping[str, Any] = field(default_factory=dict)
    sam: Mapping[str, Any] = field(default_factory=dict)
    fast: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Whether it goes together.

        Raises:
            UsageError: a flag contradicts another one, or would have no effect.
        """
        pointed = bool(self.points or self.boxes)
        ways = {"--point or --box": pointed, "--text": self.text is not None}
        ways["--everything"] = self.everything
        chosen = [name for name, given in ways.items() if given]
        if len(chosen) > 1:
            raise usage(f"{' and '.join(chosen)} ask for different things; choose one")
        if self.text is not None and not self.text.strip():
            raise usage("no words; say what to look for, such as 'the dog'", "--text")
        if len(self.boxes) > 1 and self.points:
            raise usage("one --box goes with --point; several are an object each", "--box")
        if self.candidates and not pointed:
            raise usage("has no effect without --point or --box", "--candidates")
        if self.outline and (pointed or self.text is not None):
            raise usage("has no effect without --everything", "--outline")
        if self.text is None and (idle := given(self.words)):
            raise usage("has no effect without --text", flag(next(iter(idle))))
        if (self.fast.get("imgsz") or 32) % 32:
            raise usage(f"{self.fast['imgsz']} is no multiple of 32", "--imgsz")
        if pointed and (idle := given(self.sam)):
            raise usage("has no effect with --point or --box", flag(next(iter(idle))))

    def prompts(self) -> "list[Prompt]":
        """Of one object each; none where everything is looked for."""
        from darkroom.vision.segment import Prompt

        points = tuple((x, y) for x, y, _ in self.points)
        inside = tuple(inside for *_, inside in self.points)
        if self.points:
            return [Prompt(points, inside, self.boxes[0] if self.boxes else None)]
        return [Prompt(box=box) for box in self.boxes]


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were said."""
    return {name: value for name, value in options.items() if value is not None}


def flag(name: str) -> str:
    """Of an option's name."""
    return "--" + name.replace("_", "-")


def run(
    answer: Answer,
    asked: Asked,
    images: Sequence[Path],
    model: str,
    device: str | None,
    kinds: Sequence[str],
    out: Path,
    quiet: bool = False,
) -> None:
    """Segment each picture, and write what was found.

    Raises:
        UsageError: flags that do not go together.
        DarkroomError: the model, or none of the pictures, can be used; the words fit nowhere.
    """
    from darkroom.images import peek
    from darkroom.vision.export import writer

    asked.check()
    kinds = tuple(dict.fromkeys(kinds))
    names = named(images)
    folder, file = target(out, kinds, len(names))
    inputs = frozenset(Path(path).resolve() for path in names.values())
    writers = [writer(kind, folder, file) for kind in kinds]
    for one in writers:
        one.keep = inputs
    if len(names) == 1:
        peek(next(iter(names.values())))  # says what is wrong before a model is loaded
    introduce(model, answer)
    if asked.text is not None:
        introduce(asked.words.get("encoder") or ENCODER_MODEL, answer, asked.text)
    cutter = Cutter(asked, model, device)
    done: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    answer.fields |= {"model": cutter.segmenter.name, "pictures": done, "skipped": skipped}
    progress = Progress("segment", len(names), "picture") if len(names) > 1 else None
    show = waiting(f"looking at {images[0].name}") if progress is None else progress
    try:
        with show:
            for name, path in names.items():
                try:
                    done.append(_one(cutter, writers, name, path, drawn=not file))
                except (ImageError, ValueError) as error:
                    if len(names) == 1:
                        raise
                    problem = str(error) if path.name in str(error) else f"{path.name}: {error}"
                    skipped.append({"path": str(path), "problem": problem})
                    (progress.say if progress else say)(f"left out: {problem}")
                if progress:
                    progress.advance()
    finally:  # Ctrl-C too: the pictures that are done are in the files
        if done:
            for one in writers:
                one.close()
        answer.fields["files"] = [str(path) for one in writers for path in one.files]
    if not done:
        first = skipped[0]["problem"]
        raise DataError(f"none of the {len(names)} pictures can be used; the first: {first}")
    if not quiet:
        rows = [row for one in done for row in _rows(one)]
        table(("PICTURE", "MASK", "SCORE", "AREA", "BOX", "LABEL"), rows)
    count = sum(len(one["masks"]) for one in done)
    said = f"{_several(count, 'mask')} of {_several(len(done), 'picture')}"
    said += f" in {_several(len(answer.fields['files']), 'file')}"
    say(f"{out}: {said}" + (f", {len(skipped)} left out" if skipped else ""))
    if removed := sum(one.removed for one in writers):
        say(f"note: {_several(removed, 'mask')} of an earlier run removed", "yellow")
    if not count and cutter.encoder is None and not cutter.prompts:
        lower = "--conf" if cutter.fast else "--pred-iou and --stability"
        say(f"note: {cutter.segmenter.name} was sure of nothing; lower {lower}", "yellow")
    if asked.text is not None and not count:
        from darkroom.vision.select import NotFoundError

        shown = [one["overlay"] for one in done if "overlay" in one]
        assert cutter.missed is not None
        raise NotFoundError(cutter.missed, f"the candidates: {shown[-1]}" if shown else "")


class Cutter:
    """What finds masks in a picture as it was asked for; models are opened once."""

    def __init__(self, asked: Asked, model: str, device: str | None) -> None:
        from darkroom.app.session import usable_device
        from darkroom.vision.segment import Segmenter, open_segmenter

        self.asked, self.prompts = asked, asked.prompts()
        self.missed: Any = None  # the last Selection in which nothing was chosen
        self.options: Any = None
        sam, fast = given(asked.sam), given(asked.fast)
        if sam:
            from darkroom.vision.automatic_masks import Automatic

            Automatic(**sam)  # refuses what is out of range before a model is loaded
        usable = usable_device(device)
        with waiting(f"loading {model}"):
            self.segmenter: Any = open_segmenter(model, usable)
        self.fast = not isinstance(self.segmenter, Segmenter)
        if not self.fast:
            if fast:
                raise usage(f"is of FastSAM, and {model} is SAM", flag(next(iter(fast))))
            if any(not any(prompt.inside) and prompt.box is None for prompt in self.prompts):
                raise usage("all of them are in the background; give one in the object", "--point")
            self.options = replace(self.segmenter.automatic, **sam)
        else:
            if sam:
                raise usage(f"is of SAM, and {model} is FastSAM", flag(next(iter(sam))))
            self.segmenter = replace(self.segmenter, **{FAST[key]: fast[key] for key in fast})
        self.encoder: Encoder | None = None
        if asked.text is not None:
            self.encoder = encoder(asked.words.get("encoder") or ENCODER_MODEL, usable)

    def masks(self, picture: "Image.Image") -> "Iterator[Mask]":
        """One after the other; labelled.

        Raises:
            ValueError: a point or a box lies outside of the picture.
        """
        for mask in self._masks(picture):
            yield replace(mask, label=self.asked.label) if self.asked.label else mask

    def _masks(self, picture: "Image.Image") -> "Iterator[Mask]":
        if self.prompts:
            first = self.prompts[0]
            sure = first.box is not None or len(first.points) > 1
            count = 1 if sure and not self.asked.candidates else 3
            found = self.segmenter.masks(self.segmenter.encode(picture), self.prompts, count)
            if not self.asked.candidates:
                yield from found.best()
            else:
                for index in range(len(self.prompts)):
                    yield from found.of(index)
            return
        everything = self.segmenter.everything(picture, *([self.options] if self.options else []))
        if self.encoder is None:
            yield from everything
            return
        from darkroom.vision.select import rank

        how = given({key: value for key, value in self.asked.words.items() if key != "encoder"})
        selection = rank(self.encoder, picture, everything, self.asked.text or "", **how)
        if not selection.picked:
            self.missed = selection
        yield from selection.picked

    def shown(self, picture: "Image.Image", pictured: "Pictured") -> "Image.Image | None":
        """The picture with what was found in it; of words that fit nothing, the candidates."""
        from darkroom.masks import mark, show_all, show_candidates, show_mask

        masks = (record.mask for record in pictured.records)
        points = [(x, y) for x, y, _ in self.asked.points]
        inside = [inside for *_, inside in self.asked.points]
        marks = (points, inside, self.asked.boxes)
        if not pictured.records:
            if self.missed is None or not self.missed.masks:
                return None
            return self.missed.candidates(picture)
        if self.asked.candidates:
            return show_candidates(picture, list(masks), *marks, columns=3)
        if len(pictured.records) == 1 and not self.asked.everything:
            return mark(show_mask(picture, next(masks)), *marks)
        return mark(show_all(picture, masks, outline=self.asked.outline), *marks)


def named(images: Sequence[Path]) -> dict[str, Path]:
    """Every picture, by a name of its own that files about it can have.

    Raises:
        DataError: a folder holds none.
    """
    from darkroom.vision.search import pictures_in

    found: dict[str, Path] = {}
    for path in images:
        inside = [Path(file.path) for file in pictures_in(path)] if path.is_dir() else []
        if path.is_dir() and not inside:
            raise DataError(f"{path}: no PNG, JPEG or WebP picture in it; check the path")
        for one in inside or [Path(path.name)]:
            whole = path / one if inside else path
            stem = name = one.with_suffix("").as_posix() or "picture"
            number = 1
            while name in found:
                number += 1
                name = f"{stem}-{number}"
            found[name] = whole
    return found


def target(out: Path, kinds: Sequence[str], count: int) -> tuple[Path, str]:
    """The folder that --out names, and the file in it, or "".

    Raises:
        UsageError: the formats do not fit into one file of that name.
    """
    out = out.expanduser()
    if out.is_dir() or not out.suffix:
        if out.exists() and not out.is_dir():
            raise usage(f"{out}: is a file, expected a folder", "--out")
        return out, ""
    suffix, kind = out.suffix.lower(), kinds[0]
    if len(kinds) > 1:
        raise usage(f"{out.name}: {len(kinds)} formats do not fit into one file", "--out")
    if suffix not in FILES.get(kind, ()):
        wanted = " or ".join(FILES.get(kind, ())) or "a folder"
        raise usage(f"{out.name}: {kind} is written to {wanted}", "--out")
    if count > 1 and kind in OF_ONE:
        raise usage(f"{out.name}: {kind} of {count} pictures needs a folder", "--out")
    return out.parent, out.name


def _one(
    cutter: Cutter, writers: "Sequence[Writer]", name: str, path: Path, drawn: bool
) -> dict[str, Any]:
    """Segment one picture; what was found, for JSON."""
    from darkroom.images import open_image
    from darkroom.vision.export import Pictured

    picture = open_image(path)
    pictured = Pictured(name, os.fspath(path), (picture.height, picture.width))
    found: list[dict[str, Any]] = []
    for mask in cutter.masks(picture):
        if not mask.binary().values.any():
            say(f"{path.name}: left out an empty mask ({mask.source or 'no source'})")
            continue
        record = pictured.add(mask)
        for one in writers:
            one.found(pictured, mask)
        plain = {"box": record.box, "area": record.area, "score": record.score}
        plain |= {"label": record.label, "source": record.source, "rle": dict(record.rle)}
        found.append(plain)
    for one in writers:
        one.done(pictured)
    answer = {"path": str(path), "width": picture.width, "height": picture.height, "masks": found}
    shown = cutter.shown(picture, pictured) if drawn else None
    if shown is not None:
        missed = "-candidates" if not found else "-overlay"
        answer["overlay"] = str(writers[0].draw(f"{name}{missed}.png", shown))
    return answer


def _rows(one: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for number, mask in enumerate(one["masks"], 1):
        score = "" if mask["score"] is None else f"{mask['score']:.3f}"
        box = ",".join(map(str, mask["box"]))
        rows.append((one["path"], str(number), score, str(mask["area"]), box, mask["label"]))
    return rows


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
