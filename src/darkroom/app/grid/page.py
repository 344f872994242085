"""The grid as one HTML file with its pictures inside, and as a CSV table."""

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.app.grid.axes import Axis
from darkroom.app.grid.cells import COLUMNS
from darkroom.atomic import atomic_write
from darkroom.images import open_image

STYLE = """
:root { color-scheme: light dark; --line: #d8dce2; --soft: #667085; --page: #fff }
@media (prefers-color-scheme: dark) { :root { --line: #3a404a; --soft: #9aa4b2; --page: #14171b } }
body { font: 15px/1.4 system-ui, sans-serif; background: var(--page); margin: 1.5rem }
h1 { font-size: 1.4rem; margin: 0 0 1rem } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem }
.wide { overflow: auto; max-height: 95vh } table { border-collapse: separate; border-spacing: 6px }
th { font-weight: 600; text-align: left; vertical-align: top; max-width: 16rem }
th { background: var(--page); overflow-wrap: anywhere }
thead th { position: sticky; top: 0; vertical-align: bottom } tbody th { position: sticky; left: 0 }
th small { display: block; font-weight: 400; color: var(--soft) }
img { display: block; min-width: 128px; height: auto; border-radius: 3px }
footer { color: var(--soft); margin-top: 1.5rem; font-size: .85rem }
"""
LARGEST = 768  # pixels of an embedded picture's side
Place = tuple[int, int, int]


def write(
    path: Path, title: str, axes: Sequence[Axis], pictures: Mapping[Place, Path], about: str
) -> None:
    """Put the page at ``path``, whole or not at all. Each picture links to its file."""
    x, y, z = axes
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for k, on_z in enumerate(z.values):
        if z.name:
            parts.append(f"<h2>{html.escape(f'{z.name}: {on_z.label}')}</h2>")
        parts.append('<div class="wide"><table>')
        if x.name:
            corner = "<th></th>" if y.name else ""
            parts.append(f"<thead><tr>{corner}{''.join(_head(x, v.label) for v in x.values)}</tr>")
            parts.append("</thead>")
        parts.append("<tbody>")
        for j, on_y in enumerate(y.values):
            row = _head(y, on_y.label) if y.name else ""
            for i, on_x in enumerate(x.values):
                words = ", ".join(
                    f"{axis.name} {label}"
                    for axis, label in ((x, on_x.label), (y, on_y.label), (z, on_z.label))
                    if axis.name
                )
                row += f"<td>{_picture(pictures[i, j, k], path.parent, words)}</td>"
            parts.append(f"<tr>{row}</tr>")
        parts.append("</tbody></table></div>")
    parts.append(f"<footer>{html.escape(about)}</footer>")
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )
    with atomic_write(path) as file:
        file.write(text.encode())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put one line a cell at ``path``, columns as in COLUMNS, whole or not at all."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([row[name] for name in COLUMNS] for row in rows)
    with atomic_write(path) as file:
        file.write(buffer.getvalue().encode())


def _head(axis: Axis, label: str) -> str:
    return f"<th><small>{html.escape(axis.name)}</small>{html.escape(label)}</th>"


def _picture(path: Path, folder: Path, words: str) -> str:
    shown = open_image(path)
    shown.thumbnail((LARGEST, LARGEST))
    data = io.BytesIO()
    shown.save(data, "PNG" if max(shown.size) <= 128 else "WEBP", quality=90)
    kind = "png" if max(shown.size) <= 128 else "webp"
    encoded = base64.b64encode(data.getvalue()).decode()
    words = html.escape(words)
    small = ' style="image-rendering:pixelated"' if max(shown.size) <= 128 else ""
    link = html.escape(path.relative_to(folder).as_posix())
    return (
        f'<a href="{link}" title="{words}"><img{small} width="{shown.width}" alt="{words}" '
        f'src="data:image/{kind};base64,{encoded}"></a>'
    )
