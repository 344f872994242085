"""Model folders whose JSON is not what it should be: opened, or one line, soon; nothing else."""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bounded import guarded
from darkroom import foreign
from darkroom.errors import DarkroomError
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.clip.network import Clip, ClipConfig
from darkroom.models.clip.view import View
from darkroom.models.clip.vision_transformer import VisionConfig
from darkroom.models.clip_text import TextConfig
from darkroom.models.sam.config import DecoderConfig, SamConfig, VitConfig
from darkroom.models.sam.network import Sam
from darkroom.models.unconditional_unet import UnconditionalUNet, UnconditionalUNetConfig
from darkroom.models.unet import UNet, UNetConfig
from darkroom.weights.inspect import inspect
from darkroom.weights.load import load
from darkroom.weights.locate import ASSETS
from darkroom.weights.save import save

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 10**9, 2**40, 2**62, 2**63, 10**37, 10**400, 1.5, -0.0,
    1e308, float("inf"), float("nan"), "", "x", "../x", "\0", "a" * 5000, "\ud800", [], {}, [[]],
    [0], [1, 2], [None], ["x"], {"a": 1}, {"": 0}, {"a": {"b": {}}}, [1] * 1000,
)  # fmt: skip
Path_ = tuple[Any, ...]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """A pipeline, and networks alone in diffusers' and transformers' words."""
    place = tmp_path_factory.mktemp("folders")
    text = TextConfig(
        vocabulary=50, positions=8, channels=8, layers=1, heads=1, hidden=8, end=49, projection=8
    )
    image = VisionConfig(size=32, patch=16, channels=8, layers=1, heads=1, hidden=8, projection=8)
    unet = UNetConfig(
        channels=(8, 16), heads=(1, 2), depth=(1, 0), blocks=1, text_channels=8, groups=4
    )
    pixels = UnconditionalUNetConfig(
        channels=(8, 16), attention=(False, True), blocks=1, groups=4, head_channels=8
    )
    encoder = VitConfig(channels=8, layers=1, heads=1, hidden=8, global_layers=(0,))
    decoder = DecoderConfig(hidden=8, heads=1, iou_hidden=8)
    models = {
        "unet": UNet(unet),
        "vae": Autoencoder(AutoencoderConfig(channels=(8, 16), blocks=1, groups=4)),
        "pixels": UnconditionalUNet(pixels),
        "clip": Clip(ClipConfig(image=image, text=text, view=View(size=32))),
        "sam": Sam(SamConfig(size=64, channels=8, encoder=encoder, decoder=decoder)),
    }
    for name, model in models.items():
        save(model.eval(), place / name)
    shutil.copytree(ASSETS / "emoji", place / "emoji", ignore=shutil.ignore_patterns("*.jsonl"))
    return sorted(place.iterdir())


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value[:5])
    for key, part in parts if isinstance(value, dict | list) else ():
        yield from places(part, (*at, key)) if isinstance(part, dict | list) else [(*at, key)]


def mutated(draw: random.Random, value: Any) -> Any:
    for _ in range(draw.choice([1, 1, 2, 3])):
        at = draw.choice(list(places(value)))
        odd = draw.choice(ODD)
        if not at:
            return odd if draw.random() < 0.3 else value
        holder = value
        for key in at[:-1]:
            holder = holder[key]
        chance = draw.random()
        if chance < 0.75:
            holder[at[-1]] = odd
        elif chance < 0.9:
            del holder[at[-1]]
        elif isinstance(holder, dict):
            holder[draw.choice(["", "x", "_x", "sample_size", "a" * 300])] = odd
    return value


def written(draw: random.Random, value: Any) -> bytes:
    text = json.dumps(value).encode("utf-8", "surrogatepass")
    chance = draw.random()
    if chance < 0.05:
        return text[: draw.randrange(len(text))]
    if chance < 0.08:
        return draw.choice([b"\xff\xfe" + text, b"[" * 100_000, b"", b"\0" * 100])
    return text


def check(folders: list[Path], place: Path, count: int) -> None:
    for number in range(count):
        draw = random.Random(f"folders {number}")
        source = draw.choice(folders)
        folder = place / str(number)
        shutil.copytree(source, folder)
        descriptions = sorted(p for p in source.rglob("*.json") if p.name != "tokenizer.json")
        chosen = folder / draw.choice(descriptions).relative_to(source)
        data = json.loads(chosen.read_text())
        if os.name == "posix" and draw.random() < 0.05:
            chosen.unlink()
            draw.choice([os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)])(chosen)
        else:
            chosen.write_bytes(written(draw, mutated(draw, data)))
        for call in (inspect, lambda path: load(path, device="meta"), load):
            try:
                with guarded():
                    call(folder)
            except DarkroomError as error:
                message = str(error)
                where = f"{number}: {message[:300]}"
                assert "\n" not in message, where
                assert len(message) < 1500, where
        shutil.rmtree(folder)


@pytest.fixture
def without_the_last_resort(monkeypatch):
    """Each fault is found where the file is read, not by the net around it all."""
    monkeypatch.setattr(foreign, "understood", lambda *_: contextlib.nullcontext())


@pytest.mark.usefixtures("without_the_last_resort")
def test_odd_folders(folders, tmp_path):
    check(folders, tmp_path, 30)


@pytest.mark.slow
@pytest.mark.usefixtures("without_the_last_resort")
def test_very_many_odd_folders(folders, tmp_path):
    check(folders, tmp_path, 2_000)


def test_the_last_resort(folders, tmp_path, monkeypatch):
    from darkroom.weights import folder as reading

    def fails(*_: object) -> None:
        raise TypeError("odd\nthings")

    monkeypatch.setattr(reading.configs, "unet_config", fails)
    monkeypatch.setattr(reading.families, "check_own", fails)
    with pytest.raises(DarkroomError, match=r"cannot be used \(TypeError: odd things\)") as caught:
        load(next(folder for folder in folders if folder.name == "emoji"))
    assert isinstance(caught.value.__cause__, TypeError)
