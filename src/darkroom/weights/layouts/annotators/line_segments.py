"""Where mlsd_large_512_fp32.pth and mlsd_tiny_512_fp32.pth keep the network for straight lines."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from darkroom.models.annotators.line_segments import (
    LARGE,
    STAGES,
    TINY,
    LineSegments,
    LineSegmentsConfig,
)
from darkroom.weights.layout import Entry, Layout, Table, under

FIRST = {5: 15, 4: 12}  # the number of the first block after the backbone, by the latter's stages
NORMED: Table = {"0": "conv", "1": "norm"}


def entries(config: LineSegmentsConfig) -> Iterator[Entry]:
    """The names of the PyTorch port of M-LSD; its backbone's are torchvision's MobileNetV2."""
    yield from under("backbone.features.0", "input", NORMED)
    feature = 1
    for stage, (wider, _, count, _) in enumerate(STAGES[: config.stages]):
        for block in range(count):
            theirs, ours = f"backbone.features.{feature}.conv", f"stage.{stage}.{block}"
            parts = ("widen", "filter") if wider > 1 else ("filter",)
            for index, part in enumerate(parts):
                yield from under(f"{theirs}.{index}", f"{ours}.{part}", NORMED)
            yield Entry(f"{theirs}.{len(parts)}", f"{ours}.narrow")
            yield Entry(f"{theirs}.{len(parts) + 1}", f"{ours}.norm")
            feature += 1
    start, joins = FIRST[config.stages], len(config.joins)
    for index in range(joins):
        first, second = f"block{start + 2 * index}", f"block{start + 1 + 2 * index}"
        yield from under(f"{first}.conv1", f"joins.{index}.coarse", NORMED)
        yield from under(f"{first}.conv2", f"joins.{index}.fine", NORMED)
        yield from under(f"{second}.conv1", f"joins.{index}.residual", NORMED)
        yield from under(f"{second}.conv2", f"joins.{index}.last", NORMED)
    last = f"block{start + 2 * joins}"
    yield from under(f"{last}.conv1", "middle", NORMED)
    yield from under(f"{last}.conv2", "last", NORMED)
    yield Entry(f"{last}.conv3", "output")


MLSD = Layout(
    "M-LSD", "block15.", entries, LineSegments, {"large": LARGE, "tiny": TINY}
)  # both have a block of that number


def line_segments_sizes(state: Mapping[str, Tensor]) -> LineSegmentsConfig:
    """The config of a file, by its names and shapes.

    KeyError: a tensor that tells a size is missing.
    """
    like = TINY if "block12.conv1.0.weight" in state else LARGE
    start = FIRST[like.stages]
    return LineSegmentsConfig(
        stem=state["backbone.features.0.0.weight"].shape[0],
        channels=state[f"block{start + 1}.conv2.0.weight"].shape[0],
        joins=tuple(
            state[f"block{start + 2 * index}.conv1.0.weight"].shape[0]
            for index in range(len(like.joins))
        ),
        stages=like.stages,
    )
