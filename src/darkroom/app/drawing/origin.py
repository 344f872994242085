"""What a picture given with --from leaves open, and what it may not do by itself. No torch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from darkroom.app.outcome import usage

if TYPE_CHECKING:
    from darkroom.app.drawing.request import Request
    from darkroom.generation.metadata import Params

FLAGS = {  # by field: how it is said
    "prompt": "a PROMPT",
    "model": "--model NAME|PATH",
    "sampler": "--sampler NAME",
    "spacing": "--spacing NAME",
    "guidance": "--guidance X",
    "steps": "--steps N",
    "seed": "--seed N",
    "size": "--size WxH",
}


def check_origin(request: "Request", redrawn: "Params") -> None:
    """Refuse a picture of another program while something decisive in it is open.

    Raises:
        UsageError: naming everything that is to be said.
    """
    origin = redrawn.origin
    if origin is None:
        return
    left = {
        name: reason for name, reason in origin.questions.items() if not _is_said(request, name)
    }
    if left:
        flags = [FLAGS.get(name, name) for name in left]
        wanted = " and ".join(filter(None, (", ".join(flags[:-1]), flags[-1])))
        raise usage(
            f"the picture was drawn by {origin.program}, and {'; '.join(left.values())}; "
            f"say {wanted}",
            "--from",
        )


def check_remote(named: Iterable[tuple[str, str, str]]) -> None:
    """Refuse to download what a picture names: its maker may be a stranger.

    Args:
        named: what it is, its name, and the flag with which a user names it himself.

    Raises:
        UsageError: naming it.
    """
    from darkroom.generation.metadata.chunks import shown
    from darkroom.generation.metadata.named import is_remote

    for what, name, flag in named:
        if name and is_remote(what, name):
            own = "give a PROMPT of your own" if flag == "PROMPT" else f"say {flag} yourself"
            raise usage(
                f"the picture names the remote {what} {shown(name)!r}, which would be downloaded; "
                f"{own}, or --allow-remote if you trust it",
                "--from",
            )


def not_reproduced(redrawn: "Params | None") -> str:
    """One line on what another program did that is not done again, or is a guess; "" = nothing."""
    origin = redrawn.origin if redrawn else None
    if redrawn is None or origin is None:
        return ""
    again, used = [], redrawn.noise
    if used and used.source == "cuda":
        again.append("the noise of an NVIDIA GPU (RNG: GPU)")
    if used and used.variation is not None:
        again.append(f"Variation seed: {used.variation} at {used.strength:g}")
    if used and used.later:
        again.append(f"ENSD: {used.later}")
    parts = [f"drawn again with {', '.join(again)}"] if again else []
    parts += [f"not reproduced: {', '.join(origin.missing)}"] if origin.missing else []
    return "; ".join((f"drawn by {origin.program}", *parts)) if parts else ""


def _is_said(request: "Request", name: str) -> bool:
    if name == "prompt":
        return bool(request.prompts)
    if name == "size" and request.image:
        return True
    if name == "spacing" and getattr(request, "timesteps", None):
        return True
    return getattr(request, name, None) is not None
