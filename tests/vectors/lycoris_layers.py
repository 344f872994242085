"""Make lycoris_layers.json: what lycoris-lora computes with small layers, for weights drawn again.

It runs in an environment of its own (pip install lycoris-lora torch einops); the tests read what it
wrote.
    python tests/vectors/lycoris_layers.py tests/vectors/lycoris_layers.json
"""

import json
import sys

import numpy as np
import torch
from torch import Tensor, nn

CASES = {  # name: (layer, options of the network, alpha, what of it is drawn)
    "loha": ("linear", {"algo": "loha", "lora_dim": 3}, 2.0),
    "loha conv": ("conv", {"algo": "loha", "lora_dim": 3}, 2.0),
    "loha tucker": ("conv", {"algo": "loha", "lora_dim": 2, "use_tucker": True}, 1.0),
    "loha dora": ("linear", {"algo": "loha", "lora_dim": 3, "weight_decompose": True}, 2.0),
    "lokr": ("linear", {"algo": "lokr", "lora_dim": 1, "factor": 2}, 1.5),
    "lokr both": ("linear", {"algo": "lokr", "lora_dim": 1, "decompose_both": True}, 1.5),
    "lokr full": ("linear", {"algo": "lokr", "lora_dim": 100000, "full_matrix": True}, 3.0),
    "lokr conv": ("conv", {"algo": "lokr", "lora_dim": 1, "factor": 2}, 1.5),
    "lokr tucker": ("conv", {"algo": "lokr", "lora_dim": 1, "factor": 2, "use_tucker": True}, 1.5),
    "full": ("linear", {"algo": "full"}, 1.0),
    "full conv": ("conv", {"algo": "full"}, 1.0),
    "layer norm": ("layer norm", {"algo": "norm"}, 1.0),
    "group norm": ("group norm", {"algo": "norm"}, 1.0),
    "oft": ("linear", {"algo": "diag-oft", "lora_dim": 4}, 0.0),
    "oft bound": ("linear", {"algo": "diag-oft", "lora_dim": 4, "constraint": 0.05}, 0.05),
    "oft rescaled": ("conv", {"algo": "diag-oft", "lora_dim": 4, "rescaled": True}, 0.0),
    "boft": ("linear", {"algo": "boft", "lora_dim": 2}, 0.0),
    "boft rescaled": ("conv", {"algo": "boft", "lora_dim": 2, "rescaled": True}, 0.0),
    "dora rows": ("linear", {"algo": "lora", "lora_dim": 3, "weight_decompose": True}, 2.0),
    "dora columns": (
        "linear",
        {"algo": "lora", "lora_dim": 3, "weight_decompose": True, "wd_on_out": False},
        2.0,
    ),
    "dora conv columns": (
        "conv",
        {"algo": "lora", "lora_dim": 3, "weight_decompose": True, "wd_on_out": False},
        2.0,
    ),
    "locon tucker": ("conv", {"algo": "lora", "lora_dim": 3, "use_tucker": True}, 2.0),
}


def layer_of(kind: str) -> nn.Module:
    """A layer with drawn weights."""
    made: dict[str, nn.Module] = {
        "linear": nn.Linear(12, 8),
        "conv": nn.Conv2d(4, 8, 3, stride=2, padding=1),
        "layer norm": nn.LayerNorm(12),
        "group norm": nn.GroupNorm(2, 4),
    }
    layer = made[kind]
    values = draw(7, {name: tuple(p.shape) for name, p in layer.named_parameters()})
    layer.load_state_dict(values)
    return layer


def input_of(kind: str) -> Tensor:
    """What the layer is given."""
    shape = (2, 4, 5, 5) if kind in ("conv", "group norm") else (2, 3, 12)
    return draw(9, {"x": shape})["x"]


def draw(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers in the order of the sorted names."""
    source = np.random.RandomState(seed)
    return {
        name: torch.from_numpy(0.5 * source.standard_normal(shapes[name])).float()
        for name in sorted(shapes)
    }


def main(path: str) -> None:
    """Write the vectors."""
    from lycoris import modules

    kinds = {
        "lora": modules.LoConModule,
        "loha": modules.LohaModule,
        "lokr": modules.LokrModule,
        "full": modules.FullModule,
        "norm": modules.NormModule,
        "diag-oft": modules.DiagOFTModule,
        "boft": modules.ButterflyOFTModule,
    }
    found = {}
    for name, (kind, options, alpha) in CASES.items():
        options, layer = dict(options), layer_of(kind)
        module = kinds[options.pop("algo")]("x", layer, alpha=alpha, **options)
        own = {key: value.data for key, value in module.named_parameters()}
        names = {"weight": "diff", "bias": "diff_b"} if name.startswith("full") else {}
        shapes = {names.get(key, key): tuple(value.shape) for key, value in own.items()}
        drawn = draw(11, shapes)
        for key, value in own.items():
            value.copy_(drawn[names.get(key, key)])
        x = input_of(kind)
        module.org_forward = layer.forward
        with torch.no_grad():
            y = module.eval()(x)
        found[name] = {
            "layer": kind,
            "alpha": alpha,
            "shapes": {key: list(shapes[key]) for key in sorted(shapes)},
            "output": [round(float(value), 5) for value in y.flatten()],
        }
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
