"""Training recipes, one page each; ``run`` starts the one that a TOML file names."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RECIPES = ("autoencoder", "digit_classifier", "latent_diffusion", "mnist", "pixel_diffusion")


def run(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """Train what a TOML file describes; yields one ``FitStep`` per optimizer step.

    Args:
        path: the TOML file; its ``recipe`` names a module of this package.
        overrides: top-level fields to replace, such as ``{"data": ..., "out": ...}``.

    Raises:
        ConfigError: at the call, if the file or a field is not as the recipe wants it.
    """
    import importlib

    from darkroom.config import from_dict
    from darkroom.errors import ConfigError

    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    name = str(table.pop("recipe", "")).replace("-", "_")
    if name not in RECIPES:
        raise ConfigError(f"{path}: recipe is {name!r}; expected one of {', '.join(RECIPES)}")
    recipe = importlib.import_module(f"darkroom.recipes.{name}")
    return recipe.train(from_dict(recipe.Config, {**table, **(overrides or {})}))
