"""How fast pictures come from folders and shards, and how long a trainer waits for them.

    python benchmarks/data_loading.py PHOTOGRAPHS [--count 600] [--peers DIR] [--out NAME]

PHOTOGRAPHS is a folder of JPEG files; shards of 200 are made of them. Contenders take turns, each
in a fresh process; the median of the runs counts. ``--peers`` names a folder into which webdataset
and datasets were installed (``pip install --target``). All give uint8 batches of 32 squares: the
shorter side scaled, the middle kept. Files are in the system's cache: this is decoding, not disks.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
from PIL import Image

BATCH = 32
SIZES = (64, 224)
KINDS = {
    "plain PIL loop": "folder",
    "darkroom, folder": "folder",
    "darkroom, folder, prefetch": "folder",
    "datasets, imagefolder": "folder",
    "darkroom, shards": "shards",
    "darkroom, shards, local order": "shards",
    "darkroom, shards, prefetch": "shards",
    "webdataset": "shards",
}
PEERS = ("datasets, imagefolder", "webdataset")


def make(photographs: Path, count: int, place: Path) -> None:
    """``folder/`` of links, and ``shards/`` of copies."""
    (place / "folder").mkdir()
    (place / "shards").mkdir()
    paths = sorted(photographs.glob("*.jpg"))[:count]
    for path in paths:
        (place / "folder" / path.name).symlink_to(path.resolve())
    for start in range(0, len(paths), 200):
        with tarfile.open(place / "shards" / f"{start // 200:05}.tar", "w") as tar:
            for path in paths[start : start + 200]:
                tar.add(path, f"{path.stem}.jpg")


def batches(name: str, place: Path, size: int) -> Iterator[Any]:
    """Batches of one epoch."""
    import numpy as np
    from PIL import Image, ImageOps

    def square(image: Image.Image) -> np.ndarray:
        fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
        return np.asarray(fitted)

    if name == "plain PIL loop":
        paths = sorted((place / "folder").iterdir())
        for i in range(0, len(paths), BATCH):
            yield np.stack([square(Image.open(path)) for path in paths[i : i + BATCH]])
    elif name.startswith("darkroom"):
        from darkroom.training.data.opening import open_data
        from darkroom.training.prefetch import prefetch
        from darkroom.training.stream import Order

        pictures = open_data(place / KINDS[name])
        count = len(pictures)
        order = Order(pictures, count, seed=0, buffer=64 if "local" in name else 0).step(0)
        steps = range(-(-count // BATCH))

        def load(step: int) -> Any:
            return pictures.read(order[step * BATCH : (step + 1) * BATCH], size)

        yield from prefetch(load, steps, ahead=2 if "prefetch" in name else 0)
    elif name == "webdataset":
        import webdataset

        urls = sorted(map(str, (place / "shards").glob("*.tar")))
        loaded = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(64).decode("pil")
        yield from loaded.to_tuple("jpg").map_tuple(square).batched(BATCH)
    else:
        import datasets

        datasets.disable_progress_bars()
        loaded = datasets.load_dataset(
            "imagefolder", data_dir=str(place / "folder"), split="train",
            cache_dir=str(place / "cache"),
        ).shuffle(seed=0)  # fmt: skip
        for batch in loaded.iter(BATCH):
            yield np.stack([square(image) for image in batch["image"]])


def run(name: str, place: Path, size: int) -> dict[str, float]:
    """One epoch, after a first batch of another one has warmed up everything.

    Peers open their set anew for the epoch: that, and their first batch, is not counted.
    """
    next(iter(batches(name, place, size)))
    loaded = batches(name, place, size)
    if name in PEERS:
        next(iter(loaded))
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    for batch in loaded:
        count += len(batch[0]) if isinstance(batch, list | tuple) else len(batch)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"images_per_second": count / seconds, "images_per_cpu_second": count / cpu}


def waiting(place: Path, ahead: int, steps: int) -> dict[str, float]:
    """The share of a training's time that it waits for its next batch."""
    import torch

    from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
    from darkroom.training.data.opening import open_data
    from darkroom.training.fit import FitOptions, Training, fit
    from darkroom.training.stream import stream

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = AutoencoderConfig(
        latent_channels=8, channels=(64, 104), blocks=1, groups=8, patch=4, middle_attention=False
    )
    training = Training(Autoencoder(config), FitOptions(steps=steps, batch=BATCH))
    loaded = stream(open_data(place / "shards"), 64, training, ahead=ahead)
    waits, losses = [], []

    def loss(draw):
        started = time.perf_counter()
        batch = next(loaded)
        waits.append(time.perf_counter() - started)
        image = draw.share(batch.pixels).float() / 127.5 - 1
        mean, _ = training.model.moments(image)
        return (training.model.decode(mean) - image).abs().mean()

    started = time.perf_counter()
    for step in fit(training, loss):
        losses.append(step.loss)
        if step.index == 0:
            started = time.perf_counter()
    seconds = time.perf_counter() - started
    return {"share": sum(waits[1:]) / seconds, "wait": statistics.median(waits[1:]),
            "step": seconds / (steps - 1), "loss": losses[-1]}  # fmt: skip


def alone(arguments: list[str], peers: Path | None) -> dict[str, float]:
    """What a fresh process measures."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(peers or "")
    command = [sys.executable, __file__, "--run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(r[key] for r in runs) for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--out", help="writes benchmarks/results/<date>-NAME.*")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        what, place, number = arguments.run
        result = (
            waiting(Path(place), int(number), arguments.steps)
            if what == "waiting"
            else run(what, Path(place), int(number))
        )
        print(json.dumps(result))
        return
    with Image.open(min(arguments.photographs.glob("*.jpg"))) as picture:
        first = f"{picture.width}x{picture.height}"
    facts: dict[str, Any] = {
        "machine": machine.describe(1),
        "count": arguments.count,
        "first": first,
    }
    names = [name for name in KINDS if arguments.peers or name not in PEERS]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make(arguments.photographs, arguments.count, place)
        os.environ["DARKROOM_HOME"] = str(place / "home")
        for size in SIZES:
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for turn in range(arguments.repeats):
                for name in names if turn % 2 == 0 else reversed(names):
                    runs[name].append(alone([name, str(place), str(size)], arguments.peers))
            facts[f"{size} px"] = {name: median(done) for name, done in runs.items()}
        facts["waiting"] = {
            f"ahead {ahead}": median(
                [
                    alone(
                        ["waiting", str(place), str(ahead), "--steps", str(arguments.steps)], None
                    )
                    for _ in range(arguments.repeats)
                ]
            )
            for ahead in (0, 2)
        }
    text = page(facts, arguments)
    print(text)
    if arguments.out:
        machine.write(machine.RESULTS, arguments.out, facts, text)


def page(facts: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The figures as Markdown."""
    lines = [
        "# Loading pictures",
        "",
        machine.line(facts["machine"]),
        "",
        f"{facts['count']} photographs (JPEG, the first {facts['first']}) as files and in tar "
        f"shards, to batches of {BATCH} squares; one epoch, medians of {arguments.repeats} runs "
        "that take turns. The machine is shared, so images per second of processor time is the "
        "steadier column; the ratio is to the plain loop in it. Darkroom lets the JPEG decoder "
        "scale down first.",
        "",
    ]  # fmt: skip
    for size in SIZES:
        lines += [f"| {size} px | images/s | images/CPU-s | ratio |", "|---|---|---|---|"]
        plain = facts[f"{size} px"]["plain PIL loop"]["images_per_cpu_second"]
        for name, values in facts[f"{size} px"].items():
            wall, cpu = values["images_per_second"], values["images_per_cpu_second"]
            lines.append(f"| {name} | {wall:,.0f} | {cpu:,.0f} | {cpu / plain:.2f} |")
        lines.append("")
    lines += [
        "A training at 64 px (the autoencoder of `emoji`, one thread) from the shards:", "",
        "| | of its time it waits for data | a wait, median | a step | loss of the last step |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, values in facts["waiting"].items():
        lines.append(
            f"| {name} | {values['share']:.2%} | {1000 * values['wait']:.2f} ms | "
            f"{1000 * values['step']:,.0f} ms | {values['loss']!r} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
