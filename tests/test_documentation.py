"""Every shell line and block of Python in README.md and docs/ runs, on stand-ins of random weights.

What the pages name (``v1-5-pruned.ckpt``, ``photo.jpg``, ``sd15``) lies in the working folder or a
model folder, tiny. Sizes and numbers of steps are made small; trainings are read and not run; what
would be fetched is not. A comment ``<!-- not run: why -->`` above a block leaves it out.
"""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import darkroom as dr
import darkroom.recipes as recipes
import oracles
from app.app_commands import Ended
from app.seeing.test_segment_command import DECODER, ENCODER
from darkroom.app.cli import run
from darkroom.models.control.controlnet import ControlNet
from darkroom.models.fastsam.network import FastSAM, scaled
from darkroom.models.sam.config import SamConfig
from darkroom.models.sam.network import Sam
from darkroom.weights.pull import Plan
from darkroom.weights.registry import Registered
from darkroom.weights.save import save
from generation import small
from generation.control import depth_pair
from generation.xl.pairs import photo
from vision import things
from weights import tiny

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: .+ -->\n+)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SMALLER = (  # what costs time, and no meaning
    (r"--steps \d+", "--steps 2"),
    (r"steps=\d+(,|\))", r"steps=2\1"),
    (r"steps=\d+,\d+(,\d+)?", "steps=1,2"),
    (r"--size 512x512", "--size 64x64"),
    (r"size=\(512, 512\)", "size=(64, 64)"),
    (r"--count \d+", "--count 1"),
    (r"seeds=\[7, 8(, \d+)*\]", "seeds=[7, 8]"),
    (r"seed=1[\d,./]+", "seed=1,2"),
)
DRAWING = ("generate", "edit", "control", "grid")
OUTSIDE = ("git ", "cd ", "make ", "torchrun ", "pip ", "uv ")  # not ours to run


@dataclass(frozen=True)
class Line:
    page: str
    number: int
    text: str
    output: str = ""  # what the page shows below it

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """(the number of its first line, its text), without those that are not run."""
    text = page.read_text("utf-8")
    for match in BLOCK.finditer(text):
        if match[2] == language and not match[1]:
            yield text.count("\n", 0, match.start(3)) + 1, match[3]


def shell_lines(page: Path) -> list[Line]:
    """Commands of the blocks without a language; ``&&`` makes two."""
    found = []
    for start, block in blocks(page, ""):
        rows = block.splitlines()
        for i, row in enumerate(rows):
            shown = row.startswith("$ ")
            output = " ".join(rows[i + 1 :]) if shown else ""
            for part in row.removeprefix("$ ").split(" && "):
                if part.startswith("darkroom "):
                    found.append(Line(page.name, start + i, part, output))
                elif not shown and part and not part.startswith(("#", *OUTSIDE)):
                    if not any(r.startswith("$ ") for r in rows[:i]):
                        raise AssertionError(f"{page.name}:{start + i}: not a command: {part}")
    return found


def put(model: object, path: Path) -> None:
    """A folder, which opens under the name of a file as well."""
    save(model, path.with_name("saved")).rename(path)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """Models of random weights, by the names that the pages have for them."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("v1-5-pruned.safetensors", "b.safetensors")):
        put(small.model(seed, name="dreamshaper_8"), folder / name)
    put(small.model(unet=replace(small.UNET, in_channels=9)), folder / "sd-v1-5-inpainting.ckpt")
    for name in ("v1-5-pruned.ckpt", "a.safetensors", "dreamshaper_8.safetensors", "sd15"):
        shutil.copytree(folder / "v1-5-pruned.safetensors", folder / name)
    shutil.copytree(folder / "sd15", folder / "dreamshaper_8")
    net = ControlNet.from_unet(small.model().unet, small.model().autoencoder.factor).eval()
    oracles.randomize(net)
    for name in ("control_v11p_sd15_canny.pth", "controlnet-depth"):
        put(net, folder / name)
    shutil.copytree(folder / "controlnet-depth", folder / "control_v11p_sd15_canny")
    tiny.save(depth_pair.pipeline(), folder / "512-depth-ema.ckpt")
    shutil.copytree(folder / "512-depth-ema.ckpt/depth_estimator", folder / "dpt-hybrid")
    extractor = folder / "512-depth-ema.ckpt/feature_extractor/preprocessor_config.json"
    shutil.copy(extractor, folder / "dpt-hybrid")
    things.encoder().save(folder / "clip").rename(folder / "ViT-B-32.pt")
    torch.manual_seed(0)
    sam = Sam(SamConfig(size=64, channels=32, mask_channels=16, encoder=ENCODER, decoder=DECODER))
    put(sam, folder / "sam_vit_b_01ec64.pth")
    put(FastSAM(scaled(0.33, 0.0625, 1024)), folder / "FastSAM-s.pt")
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    down, up = torch.ones(2, 32) / 9, torch.ones(32, 2) / 9
    lora = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    save_file(lora, folder / "film-grain.safetensors")
    return folder


@pytest.fixture
def place(shelf, tmp_path, monkeypatch) -> Path:
    """A working folder with what the pages name, and a home."""
    here, patch = tmp_path, monkeypatch
    patch.setenv("DARKROOM_HOME", str(here / ".home"))
    patch.setenv("DARKROOM_MODELS", str(here / ".models"))
    patch.setenv("HF_HOME", str(here / ".cache"))
    patch.setenv("COLUMNS", "80")
    patch.chdir(here)
    (here / ".models").mkdir()
    for model in shelf.iterdir():
        (here / model.name).symlink_to(model)
    for name in (
        "sd15",
        "dpt-hybrid",
        "controlnet-depth",
        "control_v11p_sd15_canny",
        "film-grain.safetensors",
    ):
        (here / ".models" / name).symlink_to(shelf / name)
    (here / "sd15").unlink()  # what a line is to write
    for program, lora in (("stable-diffusion-webui", "Lora"), ("ComfyUI", "loras")):
        (here / program / "models" / lora).mkdir(parents=True)
        (here / program / "models" / lora / "film-grain.safetensors").symlink_to(
            shelf / "film-grain.safetensors"
        )
    (here / "photos").mkdir()
    for i, colour in enumerate(("red", "green")):
        things.draw(colour, "square").resize((300, 260)).save(here / "photos" / f"{i}.jpg")
    shutil.copytree(here / "photos", here / "my-photographs")
    shutil.copytree(here / "photos", here / "photographs")
    for name in ("photo.jpg", "room.jpg", "bench_dog.png", "edges.png", "photo.png", "cat.png"):
        photo().save(here / name)
    Image.new("RGB", (504, 380), "gray").save(here / "truck.jpg")
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    for name in ("mask.png", "bench_dog_mask.png"):
        Image.fromarray(mask).resize(photo().size).save(here / name)
    for name in ("noto-emoji", "mnist"):
        (here / "data" / name).mkdir(parents=True)
    (here / "styles.csv").write_text("name,prompt,negative_prompt\nink,ink drawing,\n")
    shutil.copy(ROOT / "src/darkroom/recipes/gan.toml", here / "my-recipe.toml")

    def pulled(plan: Plan, name: str) -> Registered:
        return Registered(name=name, path=shelf / "sd15")

    patch.setattr("darkroom.weights.pull.plan", lambda *_: Plan("owner/name", "c0ffee", (), True))
    patch.setattr("darkroom.weights.pull.record", pulled)
    patch.setattr("darkroom.training.data.public.fetch.fetch", lambda *_: iter(()))
    patch.setattr("darkroom.recipes.run", lambda *given: iter(recipes.read(*given)[2:]))
    patch.setattr("darkroom.app.planned.show", lambda *_: None)
    patch.setattr("darkroom.app.planned.fields", lambda plan: {})
    patch.setattr("darkroom.recipes.plan", recipes.read)
    return here


def smaller(text: str) -> str:
    for pattern, instead in SMALLER:
        text = re.sub(pattern, instead, text)
    return text


def arguments(line: str) -> list[str]:
    """Of a command, made cheap."""
    words = shlex.split(smaller(line), comments=True)[1:]
    if words[0] in DRAWING and "--steps" not in words and "--from" not in words:
        counted = any("steps=" in word or word == "--timesteps" for word in words)
        words += [] if counted else ["--steps", "2"]
    if "--select" in words and "--threshold" not in words:
        words += ["--threshold", "0"]  # random weights find nothing
    return words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shell_line_runs(page, place, capfd):
    for line in shell_lines(page):
        capfd.readouterr()
        code = run(arguments(line.text))
        captured = capfd.readouterr()
        ended = Ended(code, captured.out, captured.err)
        if line.output:
            assert " ".join(ended.err.split()) == " ".join(line.output.split()), str(line)
        else:
            assert code == 0, f"{line}: {line.text}\n{ended.err}"


def python_blocks() -> list:
    return [
        pytest.param(block, id=f"{page.name}:{start}")
        for page in PAGES
        for start, block in blocks(page, "python")
    ]


@pytest.mark.parametrize("block", python_blocks())
def test_every_block_of_python_runs(block, place):
    exec(compile(smaller(block), "documentation", "exec"), {"__name__": "__documentation__"})


def test_there_is_something_to_run():
    assert len(shell_lines(ROOT / "README.md")) > 25
    assert len(python_blocks()) >= 5
    assert os.environ.get("HF_HUB_OFFLINE") == "1"
    assert dr.load is not None
