"""The command line, run in this process or in one of its own, with a home of its own."""

from pathlib import Path

import pytest
from app_commands import Ended

from darkroom.app.cli import run


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A data folder and a cache that hold nothing, and a working folder."""
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "DARKROOM_MODELS", "DARKROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def darkroom(capfd):
    """Run a command line in this process."""

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny real model with random weights, saved as a folder."""
    from darkroom.weights.save import save
    from generation import small

    folder = tmp_path_factory.mktemp("models") / "small"
    save(small.model(), folder)
    return folder


@pytest.fixture
def adapters(home) -> tuple[str, ...]:
    """The flags for a textual inversion, ``thing``, and a hypernetwork of the tiny model."""
    import torch

    from darkroom.adapters.hypernetwork import Hypernetwork
    from darkroom.weights.adapters.saving import save_embedding, save_hypernetwork

    generator = torch.Generator().manual_seed(0)
    shapes = {"0.weight": (48, 24), "0.bias": (48,), "1.weight": (24, 48), "1.bias": (24,)}
    pair = [
        {
            f"linear.{name}": torch.randn(shape, generator=generator)
            for name, shape in shapes.items()
        }
        for _ in "kv"
    ]
    (home / "models").mkdir(parents=True)
    save_hypernetwork(home / "models/push.pt", Hypernetwork({24: pair}))
    thing = save_embedding("thing.safetensors", torch.randn(2, 24, generator=generator))
    return ("--embedding", str(thing), "--hypernetwork", "push:0.3")
