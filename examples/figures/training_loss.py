"""The losses of training runs in one chart, on a logarithmic axis.

python examples/figures/training_loss.py runs/mnist-book runs/mnist
"""

import json
from pathlib import Path

import typer

from darkroom.charts import line_chart


def main(runs: list[Path], out: Path = Path("pictures"), what: str = "mean_loss") -> None:
    out.mkdir(parents=True, exist_ok=True)
    curves = {}
    for run in runs:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        curves[run.name] = [(row["step"], row[what]) for row in rows if what in row]
        if curves[run.name]:
            (first, began), (last, ended) = curves[run.name][0], curves[run.name][-1]
            print(f"{run.name}: {what} {began:.4g} at step {first}, {ended:.4g} at step {last}")
    chart = line_chart(curves, title="training", x="step", y=what.replace("_", " "), log=True)
    (out / "training_loss.svg").write_text(chart)


if __name__ == "__main__":
    typer.run(main)
