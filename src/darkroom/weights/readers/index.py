"""The index of a model in several files: ``weight_map`` says which file holds which tensor."""

from pathlib import Path

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.weights.readers.faults import AGAIN, Fault, naming, printable
from darkroom.weights.readers.safetensors_header import MOST_TENSORS

INDEX_SUFFIX = ".index.json"
LONGEST_INDEX = 16 << 20


def read_index(path: Path) -> dict[str, list[str]]:
    """Names of tensors by the shard that holds them.

    Raises:
        CheckpointError: damaged, or it names a file outside its folder, or one that is missing.
    """
    with naming(path):
        text = foreign.read_text(path, CheckpointError, LONGEST_INDEX)
        if text.count("[") + text.count("{") > 1000 or text.count(",") > MOST_TENSORS:
            raise Fault("is no index of shards", AGAIN)
        index = foreign.parse_json(text, path.name, CheckpointError)
        weights = index.get("weight_map") if type(index) is dict else None
        if type(weights) is not dict or not weights:
            raise Fault("has no weight_map that says which file holds what", AGAIN)
        by_file: dict[str, list[str]] = {}
        for key, name in weights.items():
            if type(name) is not str or not _is_file_name(name):
                raise Fault(
                    f"names a shard outside its folder: {printable(str(name), 40)!r}",
                    "do not use it; get the model elsewhere",
                )
            by_file.setdefault(name, []).append(key)
        if len(by_file) > 1000:
            raise Fault(f"lists {len(by_file):,} shards", "use another file")
        for name in by_file:
            if not (path.parent / name).is_file():
                raise Fault(f"lists {printable(name, 60)!r}, which is not there", "download it too")
        return by_file


def _is_file_name(name: str) -> bool:
    """Whether a name can only mean a weights' file in the same folder, on any system."""
    return (
        0 < len(name) <= 200
        and name.isprintable()
        and not any(c in name for c in '/\\:*?"<>|\0')
        and not name.startswith(".")
        and name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt"))
    )
