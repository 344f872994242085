"""Line charts and heat maps as SVG text: enough for curves and tables of numbers in a report."""

import html
import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 32, 44  # margins, in pixels
POINTS = 800  # of a curve at most; longer ones are thinned


def line_chart(
    curves: Mapping[str, Points], *, title: str = "", x: str = "", y: str = "", log: bool = False
) -> str:
    """One chart with a curve for each name; points that are not finite are left out.

    Args:
        x: what the horizontal axis is.
        y: what the vertical axis is.
        log: a logarithmic vertical axis; values of 0 and less are left out.
    """
    drawn = {name: _usable(points, log) for name, points in curves.items()}
    values = [point for points in drawn.values() for point in points]
    low_x, high_x = _span([a for a, _ in values])
    low_y, high_y = _span([math.log10(b) if log else b for _, b in values])

    def place(a: float, b: float) -> tuple[float, float]:
        b = math.log10(b) if log else b
        across = LEFT + (a - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (b - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts = [_text(WIDTH / 2, 18, title, "middle", 14), _text(WIDTH / 2, HEIGHT - 6, x, "middle")]
    parts.append(
        f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y)}</text>"
    )
    for tick in _ticks(low_x, high_x):
        across, _ = place(tick, 10**low_y if log else low_y)
        parts.append(_line(across, TOP, across, HEIGHT - BOTTOM))
        parts.append(_text(across, HEIGHT - BOTTOM + 16, f"{tick:g}", "middle"))
    for tick in _ticks(low_y, high_y):
        value = 10**tick if log else tick
        _, down = place(low_x, value)
        parts.append(_line(LEFT, down, WIDTH - RIGHT, down))
        parts.append(_text(LEFT - 6, down + 4, f"{value:.3g}", "end"))
    for i, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT - 6, TOP + 16 + 16 * i, name, "end", 12, colour))
    return _svg(WIDTH, HEIGHT, parts)


def matrix_chart(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    cell: int = 40,
) -> str:
    """A heat map, the smallest number white and the largest blue, each number in its cell.

    Args:
        values: row by row; a number that is not finite leaves its cell empty.
        cell: pixels of a cell's side.
    """
    finite = [value for row in values for value in row if math.isfinite(value)]
    low, high = _span(finite)
    left = 16 + 7 * max((len(name) for name in rows), default=0)
    slanted = 5 * max((len(name) for name in columns), default=0)  # column names run upwards
    top = 32 + slanted
    across = max((len(row) for row in values), default=0)
    width, height = left + across * cell + 16 + slanted, top + len(values) * cell + 16
    parts = [_text(width / 2, 18, title, "middle", 14)]
    for j, name in enumerate(columns):
        x, y = left + (j + 0.5) * cell, top - 6
        parts.append(
            f'<text transform="translate({x:.1f} {y}) rotate(-45)">{html.escape(name)}</text>'
        )
    for i, row in enumerate(values):
        y = top + i * cell
        if rows:
            parts.append(_text(left - 6, y + cell / 2 + 4, rows[i], "end"))
        for j, value in enumerate(row):
            if not math.isfinite(value):
                continue
            share, x = (value - low) / (high - low), left + j * cell
            shade = ",".join(
                str(round(255 + share * (c - 255))) for c in (37, 99, 235)
            )  # COLOURS[0]
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="rgb({shade})"/>'
            )
            ink = "#fff" if share > 0.55 else "#444"
            parts.append(
                _text(
                    x + cell / 2,
                    y + cell / 2 + 4,
                    f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}",
                    "middle",
                    10,
                    ink,
                )
            )
    return _svg(width, height, parts)


def _usable(points: Points, log: bool) -> list[tuple[float, float]]:
    kept = [
        (a, b) for a, b in points if math.isfinite(a) and math.isfinite(b) and (b > 0 or not log)
    ]
    stride = math.ceil(len(kept) / POINTS) or 1
    return kept[::stride]


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers between low and high."""
    raw = (high - low) / 6
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="11" fill="#444">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e5e5e5"/>'


def _text(x: float, y: float, text: str, anchor: str, size: int = 11, colour: str = "#444") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{html.escape(text)}</text>'
    )
