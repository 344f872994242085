"""Make timm_vit.json: the names inside MiDaS's files, and what timm's hybrid network puts out.

MiDaS 3.0 keeps timm's vision transformers under ``pretrained.model``. timm needs torchvision, which
does not import beside the CPU build of PyTorch, so this runs in an environment of its own (pip
install timm); the tests read what it wrote.
    python tests/vectors/timm_vit.py tests/vectors/timm_vit.json
"""

import json
import sys
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SEED = 51
SIZE = (1, 3, 96, 64)  # of the images; the network has positions for 64x64
FULL = {"dpt-hybrid": "vit_base_r50_s16_384", "dpt-large": "vit_large_patch16_384"}


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights under timm's names, drawn in the order of the sorted names."""
    draw, state = np.random.RandomState(SEED), {}
    for name in sorted(shapes):
        noise = draw.standard_normal(shapes[name])
        if noise.ndim > 1:
            noise *= np.prod(noise.shape[1:]) ** -0.5
        else:
            noise = 0.1 * noise + name.endswith("weight")
        state[name] = torch.from_numpy(np.asarray(noise, dtype=np.float32))
    return state


def images() -> Tensor:
    """Values like those of normalised photographs."""
    return torch.from_numpy(np.random.RandomState(SEED + 1).standard_normal(SIZE)).float()


def small():
    """A hybrid of timm's own layers: three stages, three blocks, 64 channels."""
    from timm.layers import HybridEmbed, StdConv2dSame
    from timm.models.resnetv2 import ResNetV2
    from timm.models.vision_transformer import VisionTransformer

    backbone = ResNetV2(
        layers=(1, 2, 1), channels=(128, 128, 256), stem_chs=32, num_classes=0, global_pool="",
        preact=False, stem_type="same", conv_layer=partial(StdConv2dSame, eps=1e-8),
    )  # fmt: skip
    return VisionTransformer(
        img_size=64, patch_size=1, embed_dim=64, depth=3, num_heads=1, mlp_ratio=2, num_classes=5,
        embed_layer=partial(HybridEmbed, backbone=backbone),
    )  # fmt: skip


@torch.no_grad()
def outputs(model, x: Tensor) -> list[Tensor]:
    """What each stage of the stem and each block puts out; positions interpolated, bilinear."""
    found = []
    backbone = model.patch_embed.backbone
    y = backbone.stem(x)
    for stage in backbone.stages:
        y = stage(y)
        found.append(y)
    y = model.patch_embed.proj(y)
    grid = round((model.pos_embed.shape[1] - 1) ** 0.5)
    places = model.pos_embed[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    places = F.interpolate(places, size=y.shape[2:], mode="bilinear").flatten(2).transpose(1, 2)
    y = y.flatten(2).transpose(1, 2) + places
    y = torch.cat((model.cls_token + model.pos_embed[:, :1], y), dim=1)
    for block in model.blocks:
        y = block(y)
        found.append(y)
    return found


def thinned(tensor: Tensor) -> list[float]:
    """Some 200 values of it."""
    flat = tensor.reshape(-1)
    return [round(float(value), 5) for value in flat[:: max(len(flat) // 200, 1)]]


def main(path: str) -> None:
    """Write the vectors."""
    import timm

    shapes = {}
    for ours, theirs in FULL.items():
        state = timm.create_model(theirs).state_dict()
        shapes[ours] = {name: list(state[name].shape) for name in sorted(state)}
    model = small().eval()
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(random_state(sizes))
    vectors = {
        "made_with": f"timm {timm.__version__}, torch {torch.__version__}",
        "shapes": shapes,
        "small": {name: list(sizes[name]) for name in sorted(sizes)},
        "outputs": [thinned(tensor) for tensor in outputs(model, images())],
    }
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(vectors, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
