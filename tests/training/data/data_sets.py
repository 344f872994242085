"""Small data sets, each written as the tool that owns the format writes it."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def picture(seed=0, size=(24, 20), form="PNG", mode="RGB", **options) -> bytes:
    """A photograph of nothing: smooth noise, unlike that of any other seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def add(tar, name, data, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def shard(path, keys, form=tarfile.USTAR_FORMAT, start=0, cls=False):
    """As img2dataset writes them: picture, caption, row."""
    with tarfile.open(path, "w", format=form) as tar:
        for number, key in enumerate(keys, start):
            add(tar, f"{key}.jpg", picture(number, form="JPEG"))
            if cls:
                add(tar, f"{key}.cls", str(number % 3).encode())
                continue
            add(tar, f"{key}.json", json.dumps({"caption": f"thing {number}", "url": "x"}).encode())
            add(tar, f"{key}.txt", f"thing {number}".encode())
    return path
