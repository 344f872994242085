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
:root { color-scheme: light dark; --line: #d8dce2; --soft: #667085; --card: #fff; --page: #f5f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a404a; --soft: #9aa4b2; --card: #1d2127; --page: #14171b }
  figure svg { filter: invert(.9) hue-rotate(180deg) }
}
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; background: var(--page); margin: 0 }
main { max-width: 84rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem }
header p { color: var(--soft); margin: .25rem 0 1.5rem }
.note { border-left: 4px solid #d97706; padding: .5rem 1rem; background: var(--card) }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem }
.card { padding: .6rem .9rem; font-size: .85rem; color: var(--soft) }
.card b { display: block; font-size: 1.25rem; color: CanvasText; overflow-wrap: anywhere }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)) }
.charts { gap: 1rem; margin-top: 1.5rem }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem }
figure { padding: .75rem; overflow-x: auto; width: fit-content; max-width: 100% }
.charts figure { width: auto } .charts svg { width: 100%; height: auto }
figure + figure, p + figure, .wide + figure { margin-top: 1rem } .charts figure { margin-top: 0 }
polyline { stroke-width: 1.6 }
img { max-width: 100%; height: auto; display: block; image-rendering: pixelated }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .5rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--line) }
table { font-variant-numeric: tabular-nums }
td, th { border-bottom: 1px solid var(--line); padding: .3rem .9rem; text-align: right }
td:first-child, th:first-child, .facts td { text-align: left } .facts td { overflow-wrap: anywhere }
pre { background: var(--card); border: 1px solid var(--line); padding: 1rem; overflow-x: auto }
summary { cursor: pointer; margin: 1rem 0 .5rem }
"""
ASIDE = ("step", "loss", "seconds", "samples_per_second", "gradient_norm", "lr")  # no curves
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
        self.parts.append(f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>')

    def write(
        self,
        path: Path,
        rows: Sequence[Mapping[str, Any]] = (),
        facts: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> None:
        """One self-contained HTML file, written whole or not at all.

        Args:
            note: a sentence on top.
            rows: of ``log.jsonl``; a curve for the loss and one for whatever was noted.
            facts: shown as a table at the end.
        """
        known = {k: v for k, v in (facts or {}).items() if isinstance(v, str | int | float)}
        lines = "".join(
            f"<tr><td>{html.escape(k)}</td><td>{html.escape(_shown(v))}</td></tr>"
            for k, v in known.items()
        )
        said = f'<p class="note">{html.escape(note)}</p>' if note else ""
        config = ""
        if self.config:
            words = html.escape(to_toml(self.config))
            config = f"<details><summary>Configuration</summary><pre>{words}</pre></details>"
        title, when = html.escape(self.title), html.escape(str(known.get("time", "")))
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{STYLE}</style><main>"
            f"<header><h1>{title}</h1><p>{when}</p></header>"
            f"{said}"
            f'{cards(rows)}<div class="charts">{"".join(curves(rows))}</div>{"".join(self.parts)}'
            f'<h2>Where and how</h2><table class="facts">{lines}</table>'
            f"{config}</main></html>\n"
        )
        with atomic_write(path) as file:
            file.write(page.encode())


def cards(rows: Sequence[Mapping[str, Any]]) -> str:
    """The last value of everything that was logged, on top of the page."""
    last: dict[str, Any] = {}
    for row in rows:
        last |= {} if "event" in row else row
    spent = sum(row["seconds"] for row in _ends(rows))
    shown = {name: _shown(value) for name, value in last.items() if name not in ASIDE}
    if "step" in last:
        shown = {"steps": str(last["step"]), "time": _duration(spent)} | shown
    boxes = (
        f'<div class="card"><b>{html.escape(value)}</b>{html.escape(name.replace("_", " "))}</div>'
        for name, value in shown.items()
    )
    return f'<div class="cards">{"".join(boxes)}</div>' if shown else ""


def _ends(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last row with a time of every session: each began to count anew."""
    ends: list[Mapping[str, Any]] = []
    fresh = True
    for row in rows:
        if row.get("event") == "start":
            fresh = True
        elif "seconds" in row:
            ends = [*ends, row] if fresh else [*ends[:-1], row]
            fresh = False
    return ends


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def curves(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A chart of the losses, logarithmic if they span a decade, and one of each other note."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if "event" in row:
            continue
        for name, value in row.items():
            if name not in ASIDE and isinstance(value, int | float):
                series.setdefault(name, []).append((row["step"], value))
    losses = {
        name.replace("_", " "): series.pop(name) for name in list(series) if name.endswith("loss")
    }
    charts = []
    if losses:
        values = [value for points in losses.values() for _, value in points if value > 0]
        wide = bool(values) and max(values) > 10 * min(values)  # else its ticks are odd numbers
        charts.append(line_chart(losses, title="loss", x="step", log=wide))
    charts += [line_chart({"": p}, title=n.replace("_", " "), x="step") for n, p in series.items()]
    return [f"<figure>{chart}</figure>" for chart in charts]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
