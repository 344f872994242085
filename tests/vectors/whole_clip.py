"""Make whole_clip.json: what OpenAI's CLIP and open_clip put out at small sizes, and their names.

Both need torchvision, which does not import beside the CPU build of PyTorch, so this runs in an
environment of its own (pip install open_clip_torch, and OpenAI's repository on the path); the tests
read what it wrote.
    PYTHONPATH=CLIP python tests/vectors/whole_clip.py tests/vectors/whole_clip.json
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

SEED = 71
WORDS = 96
IDS = ((94, 5, 17, 17, 60, 95, 0, 0), (94, 95, 0, 0, 0, 0, 0, 0))  # 94 begins and 95 ends
TEXT = {"context_length": 8, "vocab_size": WORDS, "width": 64, "heads": 1, "layers": 2}
SMALL: Mapping[str, dict[str, Any]] = {  # as open_clip describes them
    "vit": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "resnet": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "gelu": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 48, "head_width": 24, "mlp_ratio": 2.6,
            "patch_size": 8,
        },
        "text_cfg": {**TEXT, "width": 32, "heads": 4},
    },
}  # fmt: skip
OPENAI = {  # embedding, pixels, blocks, width, patch, text's width
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024),
    "ViT-B/32": (512, 224, 12, 768, 32, 512),
    "ViT-B/16": (512, 224, 12, 768, 16, 512),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768),
}
OPEN_CLIP = (
    "ViT-B-32", "ViT-B-32-256", "ViT-B-16", "ViT-B-16-plus-240", "ViT-L-14", "ViT-L-14-336",
    "ViT-H-14", "ViT-H-14-378", "ViT-g-14", "ViT-bigG-14",
)  # fmt: skip


def random_state(shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under their names, drawn in the order of the sorted names."""
    draw, state = np.random.RandomState(SEED), {}
    for name in sorted(shapes):
        noise = draw.standard_normal(shapes[name])
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
            continue
        if name.endswith("running_var"):
            noise = np.exp(0.3 * noise)
        elif name == "logit_scale":
            noise = np.asarray(2.5)
        elif noise.ndim > 1:
            noise *= np.prod(noise.shape[1:]) ** -0.5
        else:
            noise = 0.1 * noise + name.endswith("weight")
        state[name] = torch.from_numpy(np.asarray(noise, dtype=np.float32))
    return state


def images(size: int) -> Tensor:
    """Values like those of normalised photographs."""
    draw = np.random.RandomState(SEED + 1)
    return torch.from_numpy(draw.standard_normal((2, 3, size, size))).float()


def digest(shapes: Mapping[str, Any]) -> str:
    """Of names and shapes, in the order of the names; counters of batches aside."""
    kept = [name for name in sorted(shapes) if not name.endswith("num_batches_tracked")]
    lines = [f"{name} {list(shapes[name])}\n" for name in kept]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _shapes(model: Any) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def _openai(described: Mapping[str, Any]) -> Any:
    from clip.model import CLIP

    image, text = described["vision_cfg"], described["text_cfg"]
    blocks = image["layers"]
    return CLIP(
        described["embed_dim"], image["image_size"],
        tuple(blocks) if isinstance(blocks, list) else blocks,
        image["width"], image["patch_size"], text["context_length"], text["vocab_size"],
        text["width"], text["heads"], text["layers"],
    )  # fmt: skip


@torch.no_grad()
def main(path: str) -> None:
    """Write the vectors."""
    import open_clip
    from clip.model import CLIP
    from open_clip.model import CLIP as Other

    names = {}
    with torch.device("meta"):
        for name, (embedding, size, blocks, width, patch, words) in OPENAI.items():
            model = CLIP(embedding, size, blocks, width, patch, 77, 49408, words, words // 64, 12)
            names[name] = digest(_shapes(model))
        for name in OPEN_CLIP:
            config = open_clip.get_model_config(name)
            assert config is not None
            names[name] = digest(_shapes(Other(**config)))
    made = {}
    for name, described in SMALL.items():
        built = {"open_clip": Other(**described)}
        if described.get("quick_gelu"):
            built["openai"] = _openai(described)
        for library, model in built.items():
            model.load_state_dict(random_state(_shapes(model)), strict=False)
            model.eval()
            pixels = images(described["vision_cfg"]["image_size"])
            image, text = model.encode_image(pixels), model.encode_text(torch.tensor(IDS))
            made[f"{name} {library}"] = {
                "shapes": dict(sorted(_shapes(model).items())),
                "image": [[round(float(x), 5) for x in row] for row in image],
                "text": [[round(float(x), 5) for x in row] for row in text],
            }
    about = f"open_clip {open_clip.__version__}, OpenAI's CLIP, torch {torch.__version__}"
    vectors = {"made_with": about, "names": names, "small": made}
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(vectors, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
