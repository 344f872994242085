"""Make sam_originals.json: names and outputs of segment-anything and of MobileSAM.

Both need torchvision, which does not import beside the CPU build of PyTorch, so this runs in an
environment of its own, with both repositories (Apache-2.0) on the path; the tests read what it
wrote.
    PYTHONPATH=segment-anything:MobileSAM python tests/vectors/sam_originals.py FILE.json
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SEED = 61
SMALL = {"img_size": 96, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
WINDOW, GLOBAL, CHANNELS, HEADS, MLP = 5, (1,), 32, 4, 64
TINY = {"embed_dims": [8, 16, 24, 32], "depths": [2, 1, 2, 1], "num_heads": [1, 2, 3, 4]}
TINY_WINDOWS = (7, 5, 4, 6)  # over 12, 6 and 6 places: with padding, with padding, exactly one
SIZE = (45, 67)  # height and width of the small picture
LARGE = (600, 900)
HEAD = ("image_encoder.head.", "image_encoder.norm_head.")  # of MobileSAM's classifier
POINTS = [
    (20.0, 30.0),
    (60.0, 8.5),
    (33.25, 1.0),
]  # x, y in the small picture
BOX = (11.0, 5.0, 51.0, 40.0)
Call = Mapping[str, object]


def random_state(shapes: Mapping[str, Sequence[int]], seed: int = SEED) -> dict[str, Tensor]:
    """Weights drawn in the order of the sorted names; variances above 0."""
    draw, state = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        noise = draw.standard_normal(tuple(shapes[name]), dtype=np.float32)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
            continue
        if name.endswith("running_var"):
            noise = 1 + 0.1 * np.abs(noise)
        elif noise.ndim > 1 and "gaussian" not in name:
            noise *= np.float32(np.prod(noise.shape[1:]) ** -0.5)
        elif noise.ndim == 1:
            noise = np.float32(0.1) * noise + np.float32(name.endswith("weight"))
        state[name] = torch.from_numpy(np.asarray(noise))
    return state


def picture(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8, smooth as a photograph."""
    coarse = np.random.default_rng(SEED + 1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    made = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(made)


def thinned(values: Tensor | np.ndarray, count: int = 120) -> list[float]:
    """About so many values of it."""
    flat = torch.as_tensor(values).reshape(-1)
    return [float(f"{float(value):.6g}") for value in flat[:: max(len(flat) // count, 1)]]


def digest(shapes: Mapping[str, Sequence[int]]) -> str:
    """Of names and shapes."""
    lines = sorted(f"{name} {list(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sizes() -> dict[str, tuple[int, str]]:
    """How many tensors each published network has, and which."""
    from mobile_sam import sam_model_registry

    found = {}
    for name in ("vit_b", "vit_l", "vit_h", "vit_t"):
        with torch.device("cpu" if name == "vit_t" else "meta"):  # it reads numbers of tensors
            state = sam_model_registry[name]().state_dict()
        kept = {k: list(t.shape) for k, t in state.items() if not k.startswith(HEAD)}
        found[name] = (len(kept), digest(kept))
    return found


def small():
    """Segment anything at a reduced width, with 3 windows of 5 to a side of 12 patches."""
    from segment_anything import modeling

    encoder = modeling.ImageEncoderViT(
        **SMALL, mlp_ratio=2, out_chans=CHANNELS, use_rel_pos=True, window_size=WINDOW,
        global_attn_indexes=GLOBAL, norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
    )  # fmt: skip
    grid = (SMALL["img_size"] // SMALL["patch_size"],) * 2
    transformer = modeling.TwoWayTransformer(2, CHANNELS, HEADS, MLP)
    return modeling.Sam(
        encoder,
        modeling.PromptEncoder(CHANNELS, grid, (SMALL["img_size"],) * 2, 16),
        modeling.MaskDecoder(transformer_dim=CHANNELS, transformer=transformer),
    ).eval()


def tiny() -> tuple[dict[str, list[int]], Tensor]:
    """Names and features of MobileSAM's encoder at a reduced width and size."""
    from mobile_sam.modeling import TinyViT

    model = TinyViT(img_size=96, num_classes=5, window_sizes=TINY_WINDOWS, drop_path_rate=0, **TINY)
    model.layers[2].downsample.conv2.c.stride = (1, 1)  # by the width, in their code
    shapes = {k: list(t.shape) for k, t in model.state_dict().items()}
    model.load_state_dict(random_state(shapes))
    model.eval()
    x = torch.tensor(picture((96, 96))).permute(2, 0, 1)[None].float() / 100 - 1
    y = model.patch_embed(x)
    for layer in model.layers:
        y = layer(y)
    return shapes, model.neck(y.transpose(1, 2).unflatten(2, (6, 6)))


def prompts(scale: float = 1.0) -> dict[str, Call]:
    """What a predictor is asked, by name; coordinates are those of the small picture, scaled."""
    points = np.array(POINTS) * scale
    box = np.array(BOX) * scale
    return {
        "a point": {"point_coords": points[:1], "point_labels": np.array([1])},
        "a point, sure": {
            "point_coords": points[:1], "point_labels": np.array([1]), "multimask_output": False,
        },
        "points": {"point_coords": points, "point_labels": np.array([1, 1, 0])},
        "a box": {"box": box, "multimask_output": False},
        "a box and points": {
            "box": box, "point_coords": points[1:], "point_labels": np.array([1, 0]),
        },
    }  # fmt: skip


def predictions(model, image: np.ndarray, scale: float = 1.0) -> dict[str, dict[str, object]]:
    """What SamPredictor says to each, and to a second look with the best mask of the first."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(model)
    predictor.set_image(image)
    found = {}
    calls = prompts(scale)
    first = predictor.predict(**calls["a point"])
    best = first[2][int(first[1].argmax())][None]
    calls["a second look"] = {**calls["points"], "mask_input": best, "multimask_output": False}
    for name, call in calls.items():
        logits, scores, low = predictor.predict(**call, return_logits=True)
        found[name] = {
            "scores": [float(score) for score in scores],
            "areas": [int((mask > 0).sum()) for mask in logits],
            "low": thinned(low),
            "logits": thinned(logits),
        }
    return {"features": thinned(predictor.features), "prompts": found}


def full(name: str) -> dict[str, object]:
    """The same at full size, with random weights."""
    from mobile_sam import sam_model_registry

    model = sam_model_registry[name]()
    shapes = {k: list(t.shape) for k, t in model.state_dict().items()}
    model.load_state_dict(random_state(shapes))
    return predictions(model.eval(), picture(LARGE), scale=LARGE[1] / SIZE[1])


@torch.no_grad()
def main(path: str) -> None:
    """Write the vectors."""
    model = small()
    shapes = {k: list(t.shape) for k, t in model.state_dict().items()}
    model.load_state_dict(random_state(shapes))
    tiny_shapes, features = tiny()
    vectors = {
        "made_with": f"segment-anything 1.0, MobileSAM, torch {torch.__version__}",
        "sizes": sizes(),
        "small": {"shapes": shapes, **predictions(model, picture(SIZE))},
        "tiny": {"shapes": tiny_shapes, "features": thinned(features, 400)},
        "full": {name: full(name) for name in ("vit_b", "vit_t")},
    }
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(vectors, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
