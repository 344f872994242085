"""The report of a training run: one HTML file with curves, pictures and tables in it."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.atomic import atomic_write
from darkroom.charts import line_chart
from darkroom.config import to_toml

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; color: #222 }
body { margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem } figure { margin: 1rem 0 }
img { max-width: 100%; image-rendering: pixelated } figcaption { color: #666 }
table { border-collapse: collapse }
td, th { border-bottom: 1px solid #ddd; padding: .2rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto }
"""
SMALLEST = 256  # pixels: smaller pictures are shown enlarged


class Report:
    """Collects what a run shows, in order; ``write`` puts the curves of its log on top."""

    def __init__(self, title: str, config: Any = None) -> None:
        self.title, self.config = title, config
        self.parts: list[str] = []

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, sentence: str) -> None:
        self.parts.append(f"<p>{html.escape(sentence)}</p>")

    def chart(self, svg: str) -> None:
        """An SVG of ``darkroom.charts``."""
        self.parts.append(f"<figure>{svg}</figure>")

    def picture(self, image: Image.Image, caption: str = "") -> None:
        data = io.BytesIO()
        image.save(data, "PNG")
        encoded = base64.b64encode(data.getvalue()).decode()
        width = image.width * max(1, SMALLEST // max(image.width, 1))
        words = html.escape(caption)
        self.parts.append(
            f'<figure><img src="data:image/png;base64,{encoded}" width="{width}" alt="{words}">'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.heading(title)
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_shown(cell))}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        self.parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def write(
        self,
        path: Path,
        rows: Sequence[Mapping[str, Any]] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """One self-contained HTML file, written whole or not at all.

        Args:
            rows: of ``log.jsonl``; a curve for the loss and one for whatever was noted.
            facts: shown as a table at the end.
        """
        known = {k: v for k, v in (facts or {}).items() if isinstance(v, str | int | float)}
        lines = "".join(
            f"<tr><td>{html.escape(k)}</td><td>{html.escape(_shown(v))}</td></tr>"
            for k, v in known.items()
        )
        config = f"<pre>{html.escape(to_toml(self.config))}</pre>" if self.config else ""
        page = (
            f'<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style>"
            f"<h1>{html.escape(self.title)}</h1>{''.join(curves(rows))}{''.join(self.parts)}"
            f"<h2>Where and how</h2><table>{lines}</table>{config}</html>\n"
        )
        with atomic_write(path) as file:
            file.write(page.encode())


def curves(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A chart of the loss (logarithmic), and one for each other quantity that a run noted."""
    series: dict[str, list[tuple[float, float]]] = {}
    aside = ("step", "loss", "seconds", "samples_per_second", "gradient_norm", "lr")
    for row in rows:
        if "event" in row:
            continue
        for name, value in row.items():
            if name not in aside and isinstance(value, int | float):
                series.setdefault(name, []).append((row["step"], value))
    losses = {name: series.pop(name) for name in list(series) if name.endswith("loss")}
    charts = []
    if losses:
        charts.append(line_chart(losses, title="loss", x="step", log=True))
    charts += [line_chart({n: p}, title=n.replace("_", " "), x="step") for n, p in series.items()]
    return [f"<figure>{chart}</figure>" for chart in charts]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
