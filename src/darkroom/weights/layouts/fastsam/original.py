"""Where FastSAM's published files keep its network: a list of 23 layers, the last one the head."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NoReturn

from torch import Tensor

from darkroom.errors import ConfigError
from darkroom.models.fastsam.network import FASTSAM_S, FASTSAM_X, STRIDES, FastSAM, FastSAMConfig
from darkroom.weights.layout import Entry, Layout, Table, revert, under

NORMED: Table = {"conv": "conv", "bn": "norm"}
HEAD = "model.22"
MOST = 64  # pairs of a cross-stage block
PAIRED = {2: "stage.0", 4: "stage.1", 6: "stage.2", 8: "stage.3"}  # cross-stage blocks, per layer
NECK = {12: "rise.0", 15: "rise.1", 18: "fall.0", 21: "fall.1"}
PLAIN = {0: "stem", 1: "down.0", 3: "down.1", 5: "down.2", 7: "down.3"} | {
    16: "shrink.0",
    19: "shrink.1",
}
BRANCHES = {"cv2": "box", "cv3": "classify", "cv4": "coefficient"}
PROTOTYPES = {"cv1": "first", "cv2": "second", "cv3": "last"}


def entries(config: FastSAMConfig) -> Iterator[Entry]:
    """The names in FastSAM-x and FastSAM-s."""
    for layer, ours in PLAIN.items():
        yield from under(f"model.{layer}", ours, NORMED)
    counts = dict(zip(PAIRED, config.pairs, strict=True)) | dict.fromkeys(NECK, config.neck_pairs)
    for layer, ours in {**PAIRED, **NECK}.items():
        yield from _between(f"model.{layer}", ours)
        for index in range(counts[layer]):
            yield from under(f"model.{layer}.m.{index}.cv1", f"{ours}.pair.{index}.first", NORMED)
            yield from under(f"model.{layer}.m.{index}.cv2", f"{ours}.pair.{index}.second", NORMED)
    yield from _between("model.9", "pool")
    for theirs, ours in BRANCHES.items():
        for level in range(len(STRIDES)):
            for index in range(2):
                yield from under(
                    f"{HEAD}.{theirs}.{level}.{index}", f"head.{ours}.{level}.{index}", NORMED
                )
            yield Entry(f"{HEAD}.{theirs}.{level}.2", f"head.{ours}.{level}.2")
    for theirs, ours in PROTOTYPES.items():
        yield from under(f"{HEAD}.proto.{theirs}", f"head.prototype.{ours}", NORMED)
    yield Entry(f"{HEAD}.proto.upsample", "head.prototype.enlarge")
    yield Entry(f"{HEAD}.dfl.conv.weight", "head.bins", bare=True)


def _between(theirs: str, ours: str) -> Iterator[Entry]:
    yield from under(f"{theirs}.cv1", f"{ours}.enter", NORMED)
    yield from under(f"{theirs}.cv2", f"{ours}.leave", NORMED)


ORIGINAL = Layout(
    "FastSAM", f"{HEAD}.proto.", entries, FastSAM, {"fastsam-s": FASTSAM_S, "fastsam-x": FASTSAM_X}
)


def fastsam_json(config: FastSAMConfig) -> NoReturn:
    """There is no library with such a config.json: it is written in our own words.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"no library describes {config}")


def part(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The published names, from a file that has ours."""
    if "head.bins" in state:
        many = replace(FASTSAM_X, pairs=(MOST,) * 4, neck_pairs=MOST)
        return revert(state, entries(many))
    return state


def sizes(state: Mapping[str, Tensor]) -> FastSAMConfig:
    """The config of a file, by its names and shapes.

    Raises:
        KeyError: a tensor that tells a size is missing.
        ValueError: it is of a network that segments nothing, or of no such widths.
    """

    def wide(name: str) -> int:
        return state[f"{name}.weight"].shape[0]

    def pairs(layer: int) -> int:
        names = (name.split(".") for name in state if name.startswith(f"model.{layer}.m."))
        return len({parts[3] for parts in names})

    stem, fourth, eighth, sixteenth, deepest = (wide(f"model.{i}.conv") for i in (0, 1, 3, 5, 7))
    a, b, c, d = (pairs(layer) for layer in PAIRED)
    return FastSAMConfig(
        channels=(stem, fourth, eighth, sixteenth, deepest),
        pairs=(a, b, c, d),
        neck_pairs=pairs(12),
        bins=wide(f"{HEAD}.cv2.0.2") // 4,
        classes=wide(f"{HEAD}.cv3.0.2"),
        coefficients=wide(f"{HEAD}.cv4.0.2"),
        box_channels=wide(f"{HEAD}.cv2.0.0.conv"),
        class_channels=wide(f"{HEAD}.cv3.0.0.conv"),
        coefficient_channels=wide(f"{HEAD}.cv4.0.0.conv"),
        prototype_channels=wide(f"{HEAD}.proto.cv1.conv"),
    )
