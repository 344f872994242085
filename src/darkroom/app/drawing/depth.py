"""How depth guides a drawing: a depth checkpoint is told it; other models need a ControlNet."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.app.outcome import usage
from darkroom.app.terminal import say
from darkroom.atomic import atomic_write
from darkroom.errors import DarkroomError

if TYPE_CHECKING:
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.control.depth import DepthGuide

STRENGTH = 0.7  # of a run that starts from the photograph
NETS = ("ControlNet", "Control-LoRA", "T2I-adapter")  # kinds that ``inspect`` tells


def is_depth_checkpoint(model: str) -> bool:
    """Whether a local model's network is told depth, by its header; a remote one by its name."""
    from darkroom.weights.catalog import lookup
    from darkroom.weights.inspect import inspect
    from darkroom.weights.locate import locate

    known = lookup(model)
    if known or model.startswith("hf:"):
        name = (known.name if known else model).lower()
        return name.endswith("-depth") and "control" not in name
    return inspect(locate(model).path).variant == "depth to image"


def depth_net(model: str, net: str | None = None) -> str | None:
    """The control network that a depth hint is for, and a line that says which way it goes.

    Args:
        net: the one that the user named; None looks among the registered models.

    Returns:
        None for a depth checkpoint, which is told depth itself, beside which no net was named.

    Raises:
        UsageError: the model is no depth checkpoint, and there is no depth ControlNet.
    """
    if is_depth_checkpoint(model):
        more = f", beside the ControlNet {net}" if net else ""
        say(f"depth: {model} is a depth checkpoint and is told the map itself{more}")
        return net
    found = net or _registered_net()
    if found is None:
        raise usage(
            f"depth: {model} is no depth checkpoint, and no depth ControlNet is registered; get "
            "one with `darkroom models pull controlnet-depth`, or name one with --net (the public "
            "depth checkpoint was withdrawn)"
        )
    say(f"depth: {model} is no depth checkpoint; the ControlNet {found} guides it")
    return found


def _registered_net() -> str | None:
    from darkroom.weights.inspect import inspect
    from darkroom.weights.registry import registered

    for name, entry in registered().items():
        if "depth" not in f"{name} {entry.source} {entry.path.name}".lower():
            continue
        try:
            if inspect(entry.path).kind.startswith(NETS):
                return name
        except DarkroomError:
            continue  # another one may do
    return None


def depth_guide(
    model: "LatentDiffusion",
    photo: Path | None,
    hint: Path | None = None,
    strength: float | None = STRENGTH,
    *,
    network: Callable[[], Any],
    save: Path | None = None,
) -> "DepthGuide":
    """What tells a depth checkpoint the depths of a photograph, or of a depth picture.

    Args:
        hint: a grey picture, 8 or 16 bits, brighter is nearer; None = told from the photograph.
        strength: as ``DepthGuide`` has it.
        network: opens a depth network, for a checkpoint that has lost its own.
        save: the map is written there as a 16-bit PNG picture, which ``hint`` reads.

    Raises:
        UsageError: ``save`` is no PNG file.
    """
    from darkroom.generation.control.depth import DepthGuide
    from darkroom.vision.annotators.depth import depth_picture, estimate_depth

    if save is not None and save.suffix.lower() != ".png":
        raise usage(
            f"{save}: a depth map has 16 bits; give a name that ends in .png", "--save-hint"
        )
    depth: Any = hint
    if hint is None and model.depth is None and photo is not None:
        depth = estimate_depth(network(), photo)
    guide = DepthGuide(photo, depth, strength)
    if save is not None:
        found = guide.depth
        if found is None:
            own: Any = model.depth
            assert photo is not None
            found = estimate_depth(own, photo)
        with atomic_write(save) as file:
            depth_picture(found).save(file, "PNG")
    return guide
