"""What the doctor tells of the speed of operations."""

from typing import Any

import pytest
import torch
from torch import nn

from darkroom.app import speeds as told
from darkroom.app.speeds import Operation, operations
from darkroom.ops import attention, linear, measured, speeds

FEW = (
    (nn.Linear(8, 16), ((1, 5, 8),)),
    (nn.Conv2d(4, 8, 3, stride=2), ((1, 4, 6, 6),)),
    (nn.Conv2d(4, 8, 1), ((1, 4, 64, 64),)),  # too large to have a choice
    (None, ((1, 2, 9, 8), (1, 2, 7, 8), (1, 2, 7, 8))),
)


@pytest.fixture
def figures(monkeypatch, tmp_path) -> speeds.Speeds:
    """Of a folder of their own, of a clock that ticks, and of operations however small."""
    ticks = iter(range(10**9))
    found = speeds.Speeds(tmp_path, lambda: 1e-4 * next(ticks), lambda: 0)
    monkeypatch.setattr(speeds, "here", lambda: found)
    for module in (speeds, measured, linear, attention):
        monkeypatch.setattr(module, "LEAST", 1)
    few = [Operation(layer, shapes) for layer, shapes in FEW]
    monkeypatch.setattr(told, "operations", lambda: iter(few))
    return found


def test_the_doctor_measures_and_tells(darkroom, figures) -> None:
    ended = darkroom("doctor")
    assert ended.code == 0
    assert "nothing measured yet: `darkroom doctor --speed`" in ended.out
    first: dict[str, Any] = darkroom("doctor", "--speed", "--json").answer["speed"]
    assert first["file"] == str(figures.file())
    assert first["conditions"]["threads"] == torch.get_num_threads()
    assert {entry["operation"]: list(entry["seconds"]) for entry in first["operations"]} == {
        "linear 4x8x16": ["torch", "onednn"],
        "convolution 1x4x6x6x8x4x3x3x2x2x0x0": ["torch", "product"],
        "attention 2x8x4x8": ["torch", "plain", "onednn"],
    }
    assert {entry["row"] for entry in first["operations"]} == {"torch"}  # all take one tick
    assert darkroom("doctor", "--json").answer["speed"] == first  # it measures nothing itself
    ended = darkroom("doctor")
    assert "3 operations measured with" in ended.out
    assert "0 take another row" in ended.out
    assert "attention 2x8x4x8" in ended.out


def test_a_row_that_cannot_run_here(darkroom, figures, monkeypatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setitem(measured.CONVOLUTIONS, "product", fails)
    told = darkroom("doctor", "--speed", "--json").answer["speed"]["operations"]
    (found,) = [entry for entry in told if entry["operation"].startswith("convolution")]
    assert found["row"] == "torch"
    assert found["seconds"]["product"] is None
    assert "product -" in darkroom("doctor").out


def test_names() -> None:
    assert [Operation(layer, shapes).name for layer, shapes in FEW] == [
        "linear 1x5x8 to 16",
        "convolution 3x3 by 2 1x4x6x6 to 8",
        "convolution 1x1 1x4x64x64 to 8",
        "attention 1x2x9x8 1x2x7x8 1x2x7x8",
    ]


@pytest.mark.slow
def test_operations_of_stable_diffusion() -> None:
    """Without data, eight CPU seconds."""
    names = {operation.name for operation in operations()}
    assert {
        "linear 1x4096x320 to 2560",
        "convolution 3x3 1x2560x8x8 to 1280",
        "attention 1x8x4096x40 1x8x77x40 1x8x77x40",
        "convolution 3x3 1x128x512x512 to 3",
    } <= names
