"""Darkroom's own small dual encoder: no other library has it, so its names are ours."""

from collections.abc import Iterator
from typing import Any

from darkroom.errors import ConfigError
from darkroom.models.contrastive import ContrastiveConfig, ContrastiveModel
from darkroom.weights.assemble import bare
from darkroom.weights.layout import Entry, Layout


def own(config: ContrastiveConfig) -> Iterator[Entry]:
    """Every tensor under its own name."""
    names = list(bare(ContrastiveModel, config).state_dict())
    return (Entry(name, name, bare=True) for name in names)


OWN = Layout("contrastive", "image.stages.", own, ContrastiveModel, {"small": ContrastiveConfig()})


def contrastive_json(config: ContrastiveConfig) -> dict[str, Any]:
    """There is no library with such a config.json: it is written in our own words.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"no library describes {config}")
