"""Which GELU a CLIP was trained with, by its format, the config beside it, or the catalogue."""

from pathlib import Path
from typing import Any

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.weights.catalog import Known
from darkroom.weights.inspect.rule import Rule

LONGEST = 1 << 20  # bytes of a config
UNSAID = (
    "trained with GELU or with QuickGELU: the file does not say which; it opens with "
    'activation="gelu" or "quick_gelu", and with the wrong one its answers are worse'
)


def activation(rule: Rule, path: Path, own: str, known: Known | None) -> str:
    """Either "gelu" or "quick_gelu"; "" where nobody says.

    Args:
        own: what our own files say of themselves, as JSON.
    """
    said: Any = None
    if rule.layout == "Hugging Face":
        text = _json(path.parent / "config.json").get("text_config")
        said = (text.get("hidden_act") or "quick_gelu") if isinstance(text, dict) else None
    elif path.name.startswith("open_clip_"):
        model = _json(path.parent / "open_clip_config.json").get("model_cfg")
        if isinstance(model, dict):
            said = ("gelu", "quick_gelu")[bool(model.get("quick_gelu"))]
    elif own:
        said = ("gelu", "quick_gelu")[_quick(own)]
    if said is None and known is not None:
        said = known.settings.get("activation")
    if said is None and rule.layout == "OpenAI":
        said = "quick_gelu"
    return said if said in ("gelu", "quick_gelu") else ""


def _quick(own: str) -> bool:
    try:
        said = foreign.parse_json(own, "its metadata", CheckpointError)
        return bool(said["config"]["text"]["quick_gelu"])
    except (CheckpointError, KeyError, TypeError, IndexError):
        return False


def _json(path: Path) -> dict[str, Any]:
    """A config; empty where there is none that can be read: loading says what is wrong with it."""
    try:
        return foreign.read_object(path, CheckpointError, LONGEST)
    except CheckpointError:
        return {}
