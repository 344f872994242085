import json
import struct

import numpy as np
import pytest
from PIL import Image

THINGS = {"red square": (220, 40, 40), "blue disc": (40, 80, 220), "green bar": (40, 180, 80)}


@pytest.fixture(scope="session")
def captioned(tmp_path_factory):
    """A folder of nine cut-out shapes with metadata.jsonl."""
    folder = tmp_path_factory.mktemp("shapes")
    y, x = np.mgrid[:32, :32] - 15.5
    shapes = {
        "red square": (abs(x) < 9) & (abs(y) < 9),
        "blue disc": x**2 + y**2 < 120,
        "green bar": abs(y) < 5,
    }
    with (folder / "metadata.jsonl").open("w") as index:
        for i in range(9):
            name = list(THINGS)[i % 3]
            pixels = np.zeros((32, 32, 4), np.uint8)
            pixels[shapes[name]] = (*THINGS[name], 255)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            row = {"file_name": f"{i}.png", "text": name, "tags": ["shape", name.split()[0]]}
            index.write(json.dumps(row | {"skin_tone": i > 5}) + "\n")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """MNIST's four files with 240 and 60 images of ten shapes: digit d is a bar at the angle d."""
    folder = tmp_path_factory.mktemp("digits")
    y, x = np.mgrid[:28, :28] - 13.5
    random = np.random.default_rng(0)
    for part, count in (("train", 240), ("t10k", 60)):
        labels = np.arange(count) % 10
        angles = labels * (np.pi / 10) + random.normal(0, 0.02, count)
        across = np.abs(x * np.cos(angles)[:, None, None] + y * np.sin(angles)[:, None, None])
        bars = ((across < 2.5) & (x**2 + y**2 < 90)) * random.uniform(200, 256, (count, 1, 1))
        for name, values in (("images-idx3", bars), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
            path = folder / f"{part}-{name}-ubyte"
            path.write_bytes(header + values.astype(np.uint8).tobytes())
    return folder


@pytest.fixture(scope="session")
def base(captioned, tmp_path_factory):
    """A tiny model of these shapes, for the recipes that teach a finished one."""
    from darkroom.recipes import run
    from recipes.test_recipes import AUTOENCODER, DIFFUSION, write

    folder = tmp_path_factory.mktemp("base")
    list(run(write(folder, AUTOENCODER, data=captioned, out=folder / "a", steps=30)))
    autoencoder = folder / "a" / "autoencoder.safetensors"
    path = write(
        folder, DIFFUSION.replace("[text]", "steps = 2\n[text]"), data=captioned,
        out=folder / "d", autoencoder=autoencoder, steps=30,
    )  # fmt: skip
    list(run(path))
    return folder / "d" / "model"
