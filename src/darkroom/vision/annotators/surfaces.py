"""Which way surfaces face, from how the depth changes."""

import numpy as np
from numpy.typing import NDArray

from darkroom.errors import ConfigError

Array = NDArray[np.floating]
FLATTENING = 2 * np.pi


def facing(
    depth: Array, background: float = 0.1, flattening: float = FLATTENING
) -> NDArray[np.uint8]:
    """Nearness (H, W) to colours (H, W, 3): blue is how much it rises to the right, green down.

    Args:
        depth: larger is nearer, in any unit; the slopes are taken of it as it is.
        background: the farthest part of the range, 0 to 1, that is drawn flat.
        flattening: the part of a normal that looks at the viewer; larger ones are flatter.
    """
    if not (0 <= background <= 1 and flattening > 0):
        raise ConfigError(
            f"normals with background={background:g}, flattening={flattening:g}: "
            "expected 0 to 1, and above 0"
        )
    depth = depth.astype(np.float32)
    p = np.pad(depth, 1, mode="reflect")
    across, down = p[:, 2:] - p[:, :-2], p[2:] - p[:-2]
    x = across[:-2] + 2 * across[1:-1] + across[2:]
    y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    near = depth - depth.min()
    far = near < background * max(float(near.max()), 1e-12)
    normal = np.stack((np.where(far, 0, x), np.where(far, 0, y), np.full_like(x, flattening)), -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return (normal * 127.5 + 127.5).clip(0, 255).astype(np.uint8)[..., ::-1]
