"""Make timm_resnet50.json: what timm's resnet50 puts out for weights that anyone can draw again.

timm needs torchvision, which does not import beside the CPU build of PyTorch, so this runs in an
environment of its own (pip install timm); the tests read what it wrote.
    python tests/vectors/timm_resnet50.py tests/vectors/timm_resnet50.json
"""

import json
import sys

import numpy as np
import torch
from torch import Tensor

SEED = 50
SIZE = (2, 3, 70, 64)  # of the images


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a ResNet under timm's names, drawn in the order of the sorted names."""
    draw, state = np.random.RandomState(SEED), {}
    for name in sorted(shapes):
        shape = shapes[name]
        noise = draw.standard_normal(shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
            continue
        if len(shape) > 1:
            noise *= (2 / np.prod(shape[1:])) ** 0.5
        elif name.endswith("running_var"):
            noise = 0.5 + noise**2
        else:
            noise = 0.1 * noise + name.endswith("weight")
        state[name] = torch.from_numpy(np.asarray(noise, dtype=np.float32))
    return state


def images() -> Tensor:
    """Values like those of normalised photographs."""
    return torch.from_numpy(np.random.RandomState(SEED + 1).standard_normal(SIZE)).float()


def main(path: str) -> None:
    """Write the vectors."""
    import timm

    model = timm.create_model("resnet50", num_classes=0)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(random_state(shapes))
    with torch.no_grad():
        output = model.eval()(images())
    model.train()(images())  # running statistics move
    moved = model.state_dict()
    kept = [name for name in moved if name.endswith(("bn1.running_mean", "bn3.running_var"))]
    vectors = {
        "made_with": f"timm {timm.__version__}, torch {torch.__version__}",
        "shapes": {name: list(shapes[name]) for name in sorted(shapes)},
        "output": [[round(float(value), 6) for value in row[::8]] for row in output],
        "moved": {name: [round(float(v), 6) for v in moved[name][:4]] for name in kept},
    }
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(vectors, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
