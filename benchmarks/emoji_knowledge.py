"""What the built-in models know, written beside them: words, and the cosine of a likely fit.

python benchmarks/emoji_knowledge.py DATA --photographs cifar10-test.tar --photographs flowers

Writes `captions.json` (the names and tags that training read) into `assets/emoji`, and
`knowledge.json` into each built-in model's folder. The level of `emoji-clip` is the cosine at which
as many emoji fall below it with their own name as photographs rise above it with the best of the
labels of their set: each emoji on white and over a plain colour, the label in "a photo of a {}".
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from torch import Tensor

from darkroom.training.augment import COLOURS, GROUNDS, TINTS
from darkroom.training.data import open_data
from darkroom.training.data.held_out import split
from darkroom.vision.classify import open_labels
from darkroom.vision.encoder import Encoder, open_encoder
from darkroom.weights.knowledge import words_of
from darkroom.weights.locate import ASSETS

KEPT_ASIDE = 0.05  # as in emoji-clip.toml
EMPTY = "plain patterned photographic background photo"
FRAME = f"a an the on of emoji thing white {EMPTY} {' '.join((*TINTS, *GROUNDS))}"
ABOUT = {
    "emoji": ("emoji by their names, 64x64 pixels", "sd15"),
    "emoji-inpaint": ("emoji, 64x64 pixels", "sd15-inpaint"),
    "emoji-edges": ("edges for the built-in emoji", "controlnet-canny"),
    "emoji-clip": ("emoji and their names, and photographs hardly", "clip-vit-b-32"),
    "emoji-sam": ("emoji on any ground, and photographs hardly", "sam-vit-b"),
    "emoji-fastsam": ("emoji on any ground, and photographs hardly", "sam-vit-b"),
}


def write(path: Path, content: dict, indent: int | None = 1) -> None:
    """As JSON."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", "utf-8")
    print(path, path.stat().st_size)


def own(encoder: Encoder, files: list[Path], names: list[str]) -> Tensor:
    """The cosine of each emoji with its own name, on white and over a colour in turn."""
    labels = open_labels(encoder, list(dict.fromkeys(names)))
    row = {name: i for i, name in enumerate(labels.names)}
    pictures = []
    for i, file in enumerate(files):
        drawn = Image.open(file).convert("RGBA")
        colour = COLOURS[GROUNDS[i % len(GROUNDS)]] if i % 2 else (255, 255, 255)
        ground = Image.new("RGBA", drawn.size, tuple(colour))
        pictures.append(Image.alpha_composite(ground, drawn).convert("RGB"))
    vectors = encoder.encode_image(pictures)
    chosen = torch.tensor([row[name] for name in names])
    return (vectors * labels.vectors[chosen]).sum(1)


def others(encoder: Encoder, where: str, most: int) -> Tensor:
    """The best cosine of each photograph with the classes of its set."""
    pictures = open_data(where, "train")
    vectors = open_labels(encoder, list(pictures.classes)).vectors
    chosen = torch.linspace(0, len(pictures.unique()) - 1, most).long().tolist()
    read = [pictures.read([i], encoder.size)[0] for i in chosen]
    return (encoder.images(torch.stack(read)) @ vectors.T).max(1).values


def main(
    data: Path,
    photographs: Annotated[list[str], typer.Option()],
    most: int = 600,
) -> None:
    """Write what is known."""
    lines = (data / "metadata.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    things = {row["text"]: row["tags"] for row in rows if not row["skin_tone"]}
    tones = {w for row in rows if row["skin_tone"] for w in words_of(row["text"])}
    base = {
        word for name, tags in things.items() for text in (name, *tags) for word in words_of(text)
    }
    frame = sorted({*words_of(FRAME), *(tones - base)})
    write(ASSETS / "emoji/captions.json", {"frame": frame, "things": things}, None)

    learnt, _ = split((row["text"] for row in rows), KEPT_ASIDE)
    read = {
        w for i in learnt for text in (rows[i]["text"], *rows[i]["tags"]) for w in words_of(text)
    }
    never = sorted((base | set(frame)) - read - {*words_of(FRAME)})
    encoder = open_encoder("emoji-clip")
    kept = [i for i in learnt if not rows[i]["skin_tone"]]
    fits = own(
        encoder, [data / rows[i]["file_name"] for i in kept], [rows[i]["text"] for i in kept]
    )
    foreign = torch.cat([others(encoder, where, most) for where in photographs])
    levels = torch.linspace(0, 1, 101)
    gaps = [((fits < x).float().mean() - (foreign >= x).float().mean()).abs() for x in levels]
    level = levels[int(torch.stack(gaps).argmin())]
    likely = {
        "cosine": round(level.item(), 2),
        "own_above": round((fits >= level).float().mean().item(), 4),
        "of_own": len(fits),
        "photographs_above": round((foreign >= level).float().mean().item(), 4),
        "of_photographs": len(foreign),
        "sets": [Path(where).name for where in photographs],
        "measured_by": "benchmarks/emoji_knowledge.py",
    }
    print(likely)
    for name, (about, instead) in ABOUT.items():
        found: dict = {"about": about, "instead": f"darkroom models pull {instead}"}
        if name in ("emoji", "emoji-inpaint", "emoji-edges", "emoji-clip"):
            found["captions"] = "emoji"
        if name == "emoji-clip":
            found |= {"likely": likely, "never": never}
        write(ASSETS / name / "knowledge.json", found)


if __name__ == "__main__":
    typer.run(main)
