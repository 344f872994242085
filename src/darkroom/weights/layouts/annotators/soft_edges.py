"""Where ControlNetHED.pth keeps the network for soft edges."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from darkroom.models.annotators.soft_edges import SoftEdges, SoftEdgesConfig
from darkroom.weights.layout import Entry, Layout


def entries(config: SoftEdgesConfig) -> Iterator[Entry]:
    """The names of lllyasviel's Annotators."""
    yield Entry("norm", "mean", bare=True)
    for index, layers in enumerate(config.layers):
        for layer in range(layers):
            yield Entry(f"block{index + 1}.convs.{layer}", f"scale.{index}.convs.{layer}")
        yield Entry(f"block{index + 1}.projection", f"scale.{index}.edges")


CONTROLNET = Layout(
    "ControlNetHED", "block1.convs.", entries, SoftEdges, {"public": SoftEdgesConfig()}
)


def soft_edges_sizes(state: Mapping[str, Tensor]) -> SoftEdgesConfig:
    """The config of a file, by its names and shapes.

    Raises:
        KeyError: the first convolution of a scale is missing.
    """
    count = sum(name.endswith(".projection.bias") for name in state)
    scales = [f"block{index + 1}.convs." for index in range(count)]
    return SoftEdgesConfig(
        channels=tuple(state[f"{scale}0.weight"].shape[0] for scale in scales),
        layers=tuple(
            sum(name.startswith(scale) and name.endswith(".weight") for name in state)
            for scale in scales
        ),
    )
