"""Training recipes, one page each; ``run`` starts the one that a TOML file names."""

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from darkroom import foreign
from darkroom.errors import ConfigError, ConfigFileError, UnknownKeyError

if TYPE_CHECKING:
    from darkroom.recipes.running.planning import Plan

RECIPES = (
    "autoencoder",
    "clip",
    "compare_families",
    "controlnet",
    "digit_classifier",
    "fastsam",
    "flow",
    "gan",
    "inpainting",
    "latent_diffusion",
    "mnist",
    "pixel_diffusion",
    "segment_anything",
    "segmentation",
    "vae",
)
SEGMENTERS = ("fastsam", "segment_anything")  # these two are modules of recipes/segmenters


def shipped() -> dict[str, str]:
    """The recipes that come with Darkroom: the name of each file, and its first sentence."""
    from darkroom import foreign
    from darkroom.errors import ConfigError

    found = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        lines = foreign.read_text(path, ConfigError).splitlines()
        comment = " ".join(line.lstrip("# ") for line in lines[:3] if line.startswith("# "))
        found[path.name] = comment.partition(". ")[0].partition("   ")[0].removesuffix(".") + "."
    return found


def run(
    path: str | Path, overrides: Mapping[str, Any] | None = None, assignments: Iterable[str] = ()
) -> Iterator[Any]:
    """Train what a TOML file describes; yields one ``FitStep`` per optimizer step.

    Args:
        path: the TOML file; its ``recipe`` names a module of this package.
        overrides: top-level fields to replace, such as ``{"data": ..., "out": ...}``.
        assignments: any fields to replace, such as ``["fit.steps=100"]``; these come last.

    Raises:
        ConfigError: at the call, if the file or a field is not as the recipe wants it.
    """
    recipe, config = read(path, overrides, assignments)
    return _started(path, recipe.train(config))


def plan(
    path: str | Path, overrides: Mapping[str, Any] | None = None, assignments: Iterable[str] = ()
) -> "Plan":
    """What ``run`` would do and cost: measured, nothing trained, nothing left on the disk.

    A recipe whose training loops are not one for each ``FitOptions`` of its configuration says how
    many they are: ``stages(config) -> int``.

    Raises:
        DarkroomError: whatever would keep ``run`` from its first step.
    """
    from darkroom.recipes.running import planning

    recipe, config = read(path, overrides, assignments)
    with _as_said_by(path):
        stages = recipe.stages(config) if hasattr(recipe, "stages") else None
        return planning.plan(recipe.train, config, stages)


@contextlib.contextmanager
def _as_said_by(path: str | Path) -> Iterator[None]:
    """What a recipe refuses, or cannot do, is the file's fault."""
    try:
        with foreign.understood(path, ConfigFileError):
            yield
    except ConfigFileError:
        raise
    except ConfigError as error:
        raise ConfigFileError(f"{path}: {error}") from None


def _started(path: str | Path, steps: Iterator[Any]) -> Iterator[Any]:
    """The steps; what a recipe's values make impossible shows before the first one."""
    try:
        with _as_said_by(path):
            first = next(steps, None)
        if first is not None:
            yield first
            yield from steps
    finally:
        if isinstance(steps, Generator):
            steps.close()


def read(
    path: str | Path, overrides: Mapping[str, Any] | None = None, assignments: Iterable[str] = ()
) -> tuple[ModuleType, Any]:
    """The recipe that a TOML file names, and its configuration. Raises as ``run`` does."""
    from darkroom.config import amended

    table = {**foreign.read_toml(path, ConfigFileError), **(overrides or {})}
    changed = amended(table, assignments)
    try:
        return _read(path, changed)
    except UnknownKeyError as error:
        try:
            _read(path, table)
        except ConfigError as alone:  # the file is wrong, whatever was typed
            if str(alone) == str(error):
                raise ConfigFileError(str(error)) from None
        raise
    except ConfigError as error:
        raise ConfigFileError(str(error)) from None


def _read(path: str | Path, table: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    import importlib

    from darkroom.config import from_dict
    from darkroom.recipes.running.sizes import check_sizes

    table = dict(table)
    name = str(table.pop("recipe", "")).replace("-", "_")
    if name not in RECIPES:
        raise ConfigError(f"{path}: recipe is {name!r:.60}; expected one of {', '.join(RECIPES)}")
    place = "darkroom.recipes.segmenters" if name in SEGMENTERS else "darkroom.recipes"
    recipe = importlib.import_module(f"{place}.{name}")
    config = from_dict(recipe.Config, table, str(path))
    check_sizes(config, str(path))
    return recipe, config
