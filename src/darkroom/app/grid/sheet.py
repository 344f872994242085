"""The grid as one PNG: pictures in rows and columns, with labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from darkroom.app.grid.axes import Axis
from darkroom.atomic import atomic_write
from darkroom.images import open_image

SMALL, LARGEST = 128, 16_000  # pixels: of a picture's side, of the sheet's
GAP, TEXT, PAD = 6, 16, 8
INK, PAPER, SOFT = (24, 26, 30), (255, 255, 255), (110, 116, 126)

Place = tuple[int, int, int]


def write(path: Path, title: str, axes: Sequence[Axis], pictures: Mapping[Place, Path]) -> None:
    """Draw the sheet and put it at ``path``, whole or not at all.

    Pictures under 128 pixels are enlarged by whole factors; a sheet of more than 16,000 pixels a
    side is made of reduced ones.
    """
    with atomic_write(path) as file:
        sheet(title, axes, pictures).save(file, "PNG")


def sheet(title: str, axes: Sequence[Axis], pictures: Mapping[Place, Path]) -> Image.Image:
    """The sheet; z is below each other."""
    x, y, z = axes
    opened = {place: open_image(path) for place, path in pictures.items()}
    widths = [max(image.width for image in opened.values())] * len(x.values)
    tall = max(image.height for image in opened.values())
    factor = max(1, -(-SMALL // max(widths[0], tall)))
    across, down = len(x.values), len(y.values) * len(z.values)
    scale = min(factor, (LARGEST - 400) / (widths[0] * across), (LARGEST - 400) / (tall * down))
    width, height = max(int(widths[0] * scale), 1), max(int(tall * scale), 1)
    font, small = ImageFont.load_default(TEXT), ImageFont.load_default(TEXT - 3)
    side = 0
    if y.name:
        longest = max(font.getlength(line) for v in y.values for line in _lines(v.label, font, 220))
        side = int(max(longest, small.getlength(y.name))) + 2 * PAD
    heads = [_lines(value.label, font, width) for value in x.values] if x.name else []
    top = (max(map(len, heads)) + 1) * (TEXT + 4) + PAD if heads else 0
    band = TEXT + 2 * PAD if z.name else 0
    block = band + top + len(y.values) * (height + GAP)
    titles = _lines(title, font, max(side + across * (width + GAP), 200))
    first = len(titles) * (TEXT + 4) + 2 * PAD
    total = (side + across * (width + GAP) + PAD, first + len(z.values) * block + PAD)
    result = Image.new("RGB", total, PAPER)
    pen = ImageDraw.Draw(result)
    _write(pen, (PAD, PAD), titles, font, INK)
    for k, on_z in enumerate(z.values):
        start = first + k * block
        if z.name:
            pen.text((PAD, start + PAD), f"{z.name}: {on_z.label}", INK, font)
        if heads:
            pen.text((side, start + band), x.name, SOFT, small)
        for i, head in enumerate(heads):
            _write(pen, (side + i * (width + GAP), start + band + TEXT + 4), head, font, INK)
        for j, on_y in enumerate(y.values):
            row = start + band + top + j * (height + GAP)
            if y.name:
                pen.text((PAD, row), y.name, SOFT, small)
                _write(pen, (PAD, row + TEXT + 2), _lines(on_y.label, font, 220), font, INK)
            for i in range(across):
                if (i, j, k) in opened:
                    image = opened[i, j, k]
                    ways = Image.Resampling
                    way = ways.NEAREST if scale >= 1 and scale == int(scale) else ways.LANCZOS
                    size = int(image.width * scale), int(image.height * scale)
                    result.paste(image.resize(size, way), (side + i * (width + GAP), row))
    return result


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], lines: list[str], font, ink) -> None:  # pyright: ignore[reportMissingParameterType]
    for number, line in enumerate(lines):
        pen.text((at[0], at[1] + number * (TEXT + 4)), line, ink, font)


def _lines(text: str, font, width: int) -> list[str]:  # pyright: ignore[reportMissingParameterType]
    """``text`` broken into at most four lines of ``width`` pixels."""
    lines = [""]
    for word in text.split():
        tried = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(tried) > width:
            lines.append(word)
        else:
            lines[-1] = tried
    kept = [_cut(line, font, width) for line in lines[:4]]
    if len(lines) > 4:
        kept[-1] = _cut(f"{kept[-1]} ...", font, width)
    return kept


def _cut(line: str, font, width: int) -> str:  # pyright: ignore[reportMissingParameterType]
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line}..."
