"""ComfyUI's ``extra_model_paths.yaml``: folders of other programs, by what they hold."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from darkroom import foreign
from darkroom.errors import ConfigError

EXTRA_PATHS = "extra_model_paths.yaml"
LARGEST = 64 << 10  # bytes
NESTED = re.compile(r"^[ ]*[-?] |[\[{]", re.MULTILINE)  # lists and objects, of which it has none
OWN = ("base_path", "is_default")  # keys that name no folder of models
NO_MODELS = ("configs", "custom_nodes")


def extra_paths(file: Path) -> Iterator[tuple[Path, str]]:
    """(folder, key) for each line of each section; folders need not be there.

    Relative paths start at the section's ``base_path``, and that at the file, as in ComfyUI.

    Raises:
        ConfigError: it is no such file.
    """
    for title, section in _sections(file).items():
        if section is None:
            continue
        if not isinstance(section, dict):
            raise ConfigError(f"{file}: {title!s:.40}: expected folders by name, as in loras: ...")
        base = section.get("base_path") or ""
        if not isinstance(base, str):
            raise ConfigError(f"{file}: {title!s:.40}: base_path: expected a path")
        start = file.parent / os.path.expandvars(os.path.expanduser(base))
        for key, value in section.items():
            if key in OWN or key in NO_MODELS or value is None:
                continue
            if not isinstance(value, str):
                raise ConfigError(f"{file}: {title!s:.40}: {key!s:.40}: expected paths, one a line")
            for line in filter(None, (line.strip() for line in value.splitlines())):
                yield start / os.path.expandvars(os.path.expanduser(line)), str(key)


def _sections(file: Path) -> dict:
    import yaml  # comes with huggingface_hub

    text = foreign.read_text(file, ConfigError, LARGEST)
    if len(NESTED.findall(text)) > 16:  # the parser takes quadratic time over them
        raise ConfigError(f"{file}: lists in it; expected sections with paths, one a line")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:120]
        raise ConfigError(f"{file}: not YAML ({text}); see ComfyUI's example of it") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected sections, such as comfyui: with folders in it")
    return found
