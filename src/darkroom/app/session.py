"""What is loaded: models, for as long as the session lives. A session is passed, never global."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.errors import ConfigError, ModelMismatchError, ModelNotFoundError

if TYPE_CHECKING:
    from darkroom.diffusion.latent_diffusion import LatentDiffusion

Key = tuple[str, str | None, str | None]  # name, dtype, device


@dataclass
class Session:
    """Loads each model once.

    Args:
        strict: keys of a file that touch no part of its model are an error.
        low_memory: models are opened so, see ``load``.
    """

    strict: bool = False
    low_memory: bool = False
    models: dict[Key, "LatentDiffusion"] = field(default_factory=dict)

    def model(
        self, name: str, dtype: str | None = None, device: str | None = None
    ) -> "LatentDiffusion":
        """The model called ``name``, loaded now or before.

        Raises:
            DarkroomError: it cannot be found, read or placed on the device.
        """
        key = (name, dtype, device)
        if key not in self.models:
            self.models[key] = open_model(name, dtype, device, self.strict, self.low_memory)
        return self.models[key]


def open_model(
    name: str,
    dtype: str | None,
    device: str | None,
    strict: bool = False,
    low_memory: bool = False,
) -> "LatentDiffusion":
    """Load what must be a text-to-image model.

    Raises:
        ModelMismatchError: it is a model of another kind, such as an autoencoder alone.
        DarkroomError: it cannot be found, read or placed on the device.
    """
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.weights.load import load

    place = usable_device(device)
    model = load(name, dtype=dtype, device=place, strict=strict, low_memory=low_memory)
    if not isinstance(model, LatentDiffusion):
        raise ModelMismatchError(
            f"{name}: a {type(model).__name__} alone, not a text-to-image model; "
            "`darkroom inspect` says what it is"
        )
    return model


def usable_device(device: str | None) -> str | None:
    """``device`` if this machine has it; imports torch.

    Raises:
        ConfigError: it has not.
    """
    if device is None or device == "cpu":
        return device
    import torch

    kind, _, number = device.partition(":")
    backend = torch.cuda if kind == "cuda" else torch.backends.mps
    count = torch.cuda.device_count() if kind == "cuda" else int(backend.is_available())
    if not backend.is_available() or int(number or 0) >= count:
        raise ConfigError(
            f"device {device!r} is not on this machine ({count} of its kind); "
            "use --device cpu, and see `darkroom doctor`"
        )
    return device


def check_model_name(name: str) -> None:
    """Refuse a name that leads nowhere, before torch is imported and without the network.

    Raises:
        ModelNotFoundError: it is no model on this machine, no path and no public name.
    """
    from darkroom.weights.catalog import lookup
    from darkroom.weights.locate import locate, parse_remote

    if name.startswith("hf:"):
        parse_remote(name)
    elif not lookup(name):
        locate(name)


def local_path(name: str) -> Path | None:
    """Where the files of a model, LoRA or picture lie; None where they may have to be downloaded.

    Raises:
        DarkroomError: it cannot be found.
    """
    from darkroom.weights.adapters.lora import find_lora
    from darkroom.weights.catalog import lookup
    from darkroom.weights.locate import locate

    if name.startswith("hf:") or lookup(name):
        return None
    try:
        return locate(name).path
    except ModelNotFoundError:
        return find_lora(name)


def base_of(name: str) -> str:
    """The family of a local model by its header, such as "SDXL"; "" where that does not say.

    Raises:
        DarkroomError: it cannot be found or read.
    """
    from darkroom.weights.catalog import lookup
    from darkroom.weights.inspect import inspect
    from darkroom.weights.locate import locate

    if name.startswith("hf:") or lookup(name):
        return ""  # may have to be downloaded; the loaded model will tell
    return inspect(locate(name).path).base
