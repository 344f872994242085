"""What the sizes in a recipe make, before anything of it is built."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from darkroom.errors import ConfigError, LayoutError, NotEnoughMemoryError
from darkroom.generation import memory
from darkroom.models.digit_classifier import DigitClassifier, DigitClassifierConfig
from darkroom.models.flow import Flow, FlowConfig
from darkroom.models.gan import GAN, GANConfig
from darkroom.models.vae import VAE, VAEConfig
from darkroom.weights.assemble import bare
from darkroom.weights.folder import CONFIGS

MODELS: Mapping[type, Callable[[Any], nn.Module]] = MappingProxyType(
    {
        **{config: model for model, config in CONFIGS.items()},
        DigitClassifierConfig: DigitClassifier,
        FlowConfig: Flow,
        GANConfig: GAN,
        VAEConfig: VAE,
    }
)
BYTES = 16  # of a parameter that is trained: itself, its gradient, and Adam's two moments


def check_sizes(config: Any, where: str) -> None:
    """Refuse a network that cannot be built, or that the memory does not hold.

    Raises:
        ConfigError: its sizes make no network, or a larger one than any.
        NotEnoughMemoryError: training it takes more than is free.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if type(value) in MODELS:
            _check(MODELS[type(value)], value, f"{where}: {field.name}")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_sizes(value, f"{where}: {field.name}")


def _check(model: Callable[[Any], nn.Module], config: Any, where: str) -> None:
    try:
        network = bare(model, config)
    except LayoutError as error:
        raise ConfigError(f"{where}: {error}") from None
    need = BYTES * sum(parameter.numel() for parameter in network.parameters())
    free = memory.available("cpu")
    if free is not None and need > free:
        raise NotEnoughMemoryError(
            f"{where}: training it needs more than {need / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are "
            "free; make it smaller"
        )
