"""Make uniformer.json: what ControlNet's copy of UniFormer puts out.

It needs that file alone, annotator/uniformer/mmseg/models/backbones/uniformer.py of
lllyasviel/ControlNet; what the file imports of timm, mmcv and mmseg does nothing here:
    PYTHONPATH=tests python tests/vectors/uniformer.py uniformer.py tests/vectors/uniformer.json
"""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vectors.timm_resnet50 import random_state

SMALL = {"embed_dim": [64, 64, 128, 192], "layers": [2, 1, 2, 1]}
FULL = {"embed_dim": [64, 128, 320, 512], "layers": [3, 4, 8, 3]}


def picture() -> Tensor:
    """A normalised picture."""
    noise = np.random.RandomState(11).standard_normal((1, 3, 64, 96))
    return torch.from_numpy(noise).float()


def sample(output: Tensor) -> Tensor:
    """Some 60 numbers from all over a network's output."""
    return output.flatten()[:: max(1, output.numel() // 60)]


def reference(path: str) -> Any:
    """The class, its imports answered by stubs."""

    def module(name: str, **attributes: Any) -> None:
        sys.modules[name] = ModuleType(name)
        for key, value in attributes.items():
            setattr(sys.modules[name], key, value)

    class Registry:
        @staticmethod
        def register_module() -> Any:
            return lambda kind: kind

    for name in ("timm", "timm.models", "annotator", "annotator.uniformer", "models"):
        module(name)
    module(
        "timm.models.layers",
        DropPath=lambda rate: nn.Identity(),
        to_2tuple=lambda value: (value, value),
        trunc_normal_=lambda weight, std: weight,
    )
    module("annotator.uniformer.mmcv_custom", load_checkpoint=None)
    module("annotator.uniformer.mmseg")
    module("annotator.uniformer.mmseg.utils", get_root_logger=None)
    module("models.builder", BACKBONES=Registry)
    module("models.backbones", __path__=[])
    spec = spec_from_file_location("models.backbones.uniformer", path)
    assert spec
    assert spec.loader
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.UniFormer


def main(source: str, path: str) -> None:
    """Write the vectors."""
    kind = reference(source)
    network = kind(**SMALL).eval()
    shapes = {k: tuple(t.shape) for k, t in network.state_dict().items()}
    network.load_state_dict(random_state(shapes))
    with torch.no_grad():
        features = network(picture())
    full = kind(**FULL).state_dict()
    vectors = {
        "made_with": f"lllyasviel/ControlNet, torch {torch.__version__}",
        "shapes": {name: list(shapes[name]) for name in sorted(shapes)},
        "full": {name: list(full[name].shape) for name in sorted(full)},
        "outputs": [list(t.shape) for t in features],
        "values": [[float(f"{v:.6g}") for v in sample(t).tolist()] for t in features],
    }
    text = json.dumps(vectors, separators=(",", ":"))
    Path(path).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
