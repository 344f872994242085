import json

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
