"""The files that a picture names; none is fetched because a picture says so."""

from collections.abc import Iterator

from darkroom.errors import ConfigError
from darkroom.generation.metadata.chunks import shown
from darkroom.generation.metadata.params import Params
from darkroom.text.prompt import extract_hypernetworks, extract_loras
from darkroom.weights.locate import needs_network


def tagged(params: Params) -> Iterator[tuple[str, str]]:
    """(what, name) of the adapters that its prompts ask for."""
    for text in (params.prompt, params.negative or ""):
        yield from (("LoRA", lora.name) for lora in extract_loras(text)[1])
        yield from (("hypernetwork", tag.name) for tag in extract_hypernetworks(text))


def check_local(params: Params, *, nets: bool = True) -> None:
    """Refuse to fetch what a picture names beside its models.

    Args:
        nets: its control networks are found by their names, too.

    Raises:
        ConfigError: naming it.
    """
    used = [("LoRA", lora.name) for lora in params.loras]
    used += [("textual inversion", embedding.name) for embedding in params.embeddings]
    used += [("hypernetwork", network.name) for network in params.hypernetworks]
    used += [("control network", control.net) for control in params.controls if nets]
    for what, name in (*tagged(params), *used):
        if is_remote(what, name):
            raise ConfigError(
                f"the picture names the remote {what} {shown(name)!r}, which would be downloaded: "
                "pass remote=True if you trust it"
            )


def is_remote(what: str, name: str) -> bool:
    """Whether the network is needed for it; adapters are fetched by ``hf:`` names alone."""
    if what in ("LoRA", "textual inversion", "hypernetwork") and not name.startswith("hf:"):
        return name.startswith(("//", "\\\\"))  # of another machine, on Windows
    return needs_network(name)
