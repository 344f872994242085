"""Plots as pictures: bars beside a picture, and tables of numbers as heat maps."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from darkroom.images import grid

BLUE, GREY, INK = (37, 99, 235), (229, 229, 229), (68, 68, 68)
SIDE = 224  # pixels of a picture's side
GAP = 12

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def bars(picture: Image.Image, labels: Sequence[tuple[str, float]], title: str = "") -> Image.Image:
    """A picture, and beside it a bar for each (label, share of one), in their order."""
    line = 30 if len(labels) <= 6 else 22
    font = ImageFont.load_default(13)
    name_width = _widest([name for name, _ in labels], font, 220)
    height = max(SIDE, line * len(labels)) + 2 * GAP + 20
    sheet = Image.new("RGB", (SIDE + name_width + 240 + 4 * GAP, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), _cut(title, sheet.width - 2 * GAP, font), INK, font)
    shown = ImageOps.contain(picture.convert("RGB"), (SIDE, SIDE))
    sheet.paste(shown, (GAP + (SIDE - shown.width) // 2, GAP + 20 + (SIDE - shown.height) // 2))
    left = SIDE + name_width + 3 * GAP
    for i, (name, share) in enumerate(labels):
        y = GAP + 20 + i * line
        middle = y + line / 2
        pen.text((left - 6, middle), _cut(name, name_width, font), INK, font, anchor="rm")
        pen.rectangle((left, y + 4, left + 180, y + line - 4), GREY)
        pen.rectangle((left, y + 4, left + round(180 * share), y + line - 4), BLUE)
        pen.text((left + 188, middle), f"{share:.1%}", INK, font, anchor="lm")
    return sheet


def bar_sheet(
    pictures: Sequence[tuple[Image.Image, Sequence[tuple[str, float]], str]],
    columns: int | None = None,
) -> Image.Image:
    """``bars`` of each (picture, labels, title), in rows; by default two columns from 3 on."""
    cells = [bars(*one) for one in pictures]
    return grid(cells, columns or (1 if len(cells) < 3 else 2))


def heat_map(
    values: Sequence[Sequence[float]],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    title: str = "",
    pictures: Sequence[Image.Image] = (),
    whole: bool = False,
) -> Image.Image:
    """A table of numbers, the smallest white and the largest blue.

    Args:
        rows: beside the table, from the top.
        columns: above the table, upwards; without them, ``pictures`` stand there.
        pictures: one for each column.
        whole: the numbers count something.
    """
    count = max((len(row) for row in values), default=0)
    cell = 80 if pictures else max(36, min(64, 900 // max(1, count)))
    flat = [value for row in values for value in row]
    low, high = min(flat, default=0.0), max(flat, default=1.0)
    low = min(low, 0.0) if whole else low
    span = (high - low) or 1.0
    font, large = ImageFont.load_default(13), ImageFont.load_default(15)
    left = GAP + _widest(rows, font, 420) + 8
    upward = _widest(columns, font, 240) + 8 if columns else 0
    top = GAP + 24 + upward + (cell + 4 if pictures else 0)
    size = (left + count * cell + GAP, top + len(values) * cell + GAP)
    sheet = Image.new(
        "RGB", (max(size[0], _widest([title], large, 2000) + 2 * GAP), size[1]), "white"
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, INK, large)
    for j, picture in enumerate(pictures):
        shown = ImageOps.fit(picture.convert("RGB"), (cell - 4, cell - 4))
        sheet.paste(shown, (left + j * cell + 2, top - cell))
    for j, name in enumerate(columns):
        text = _cut(name, upward - 8, font)
        turned = Image.new("RGB", (upward, 18), "white")
        ImageDraw.Draw(turned).text((2, 9), text, INK, font, anchor="lm")
        turned = turned.rotate(90, expand=True)
        down = top - (cell + 4 if pictures else 0) - upward - 2
        sheet.paste(turned, (left + j * cell + cell // 2 - 9, down))
    for i, row in enumerate(values):
        middle = top + (i + 0.5) * cell
        if rows:
            pen.text((left - 8, middle), _cut(rows[i], left, font), INK, font, anchor="rm")
        for j, value in enumerate(row):
            share = (value - low) / span
            x, y = left + j * cell, top + i * cell
            colour = tuple(round(255 + share * (c - 255)) for c in BLUE)
            pen.rectangle((x, y, x + cell - 1, y + cell - 1), colour)
            text = f"{value:,.0f}" if whole else f"{value:.2f}"
            pen.text((x + cell / 2, middle), text, "white" if share > 0.55 else INK, font, "mm")
    return sheet


def _cut(text: str, width: float, font: Font) -> str:
    """As much of a text as fits."""
    if font.getlength(text) <= width:
        return text
    text = text[: round(width / 3)]  # no letter is narrower than that
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _widest(names: Sequence[str], font: Font, most: int) -> int:
    return min(most, max((math.ceil(font.getlength(name)) for name in names), default=0))
