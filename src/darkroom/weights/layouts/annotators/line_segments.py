"""Where mlsd_large_512_fp32.pth keeps the network for straight lines."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from darkroom.models.annotators.line_segments import STAGES, LineSegments, LineSegmentsConfig
from darkroom.weights.layout import Entry, Layout, Table, under

NORMED: Table = {"0": "conv", "1": "norm"}


def entries(config: LineSegmentsConfig) -> Iterator[Entry]:
    """The names of the PyTorch port of M-LSD; its backbone's are torchvision's MobileNetV2."""
    del config
    yield from under("backbone.features.0", "input", NORMED)
    feature = 1
    for stage, (wider, _, count, _) in enumerate(STAGES):
        for block in range(count):
            theirs, ours = f"backbone.features.{feature}.conv", f"stage.{stage}.{block}"
            parts = ("widen", "filter") if wider > 1 else ("filter",)
            for index, part in enumerate(parts):
                yield from under(f"{theirs}.{index}", f"{ours}.{part}", NORMED)
            yield Entry(f"{theirs}.{len(parts)}", f"{ours}.narrow")
            yield Entry(f"{theirs}.{len(parts) + 1}", f"{ours}.norm")
            feature += 1
    joins = len(STAGES) - 1
    for index in range(joins):
        first, second = f"block{15 + 2 * index}", f"block{16 + 2 * index}"
        yield from under(f"{first}.conv1", f"joins.{index}.coarse", NORMED)
        yield from under(f"{first}.conv2", f"joins.{index}.fine", NORMED)
        yield from under(f"{second}.conv1", f"joins.{index}.residual", NORMED)
        yield from under(f"{second}.conv2", f"joins.{index}.last", NORMED)
    last = f"block{15 + 2 * joins}"
    yield from under(f"{last}.conv1", "middle", NORMED)
    yield from under(f"{last}.conv2", "last", NORMED)
    yield Entry(f"{last}.conv3", "output")


MLSD = Layout("M-LSD", "block15.", entries, LineSegments, {"large": LineSegmentsConfig()})


def line_segments_sizes(state: Mapping[str, Tensor]) -> LineSegmentsConfig:
    """The config of a file, by its shapes. KeyError: a tensor that tells a size is missing."""
    return LineSegmentsConfig(
        stem=state["backbone.features.0.0.weight"].shape[0],
        channels=state["block16.conv2.0.weight"].shape[0],
    )
