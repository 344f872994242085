"""Hypernetworks of the A1111 web UI: small networks before the keys and values of attention.

For each width of context there are two, ``x + weight * net(x)`` of what becomes the keys and of
what becomes the values. They act in every attention of the U-Net whose context has that width:
768 is the text of SD 1.x; 320, 640 and 1280 are the tokens of self-attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.adapters.lora import Hooked, plain
from darkroom.errors import LayoutError, ModelMismatchError
from darkroom.nn.attention import Attention

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    **{
        kind.__name__.lower(): kind
        for kind in (
            nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
            nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.RReLU, nn.SELU, nn.SiLU,
            nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink,
        )
    },
    "swish": nn.Hardswish,  # what A1111 means by it
}  # fmt: skip
_OLD = {"linear1": "linear.0", "linear2": "linear.1"}  # names of the first files


@dataclass(frozen=True, kw_only=True)
class HypernetworkConfig:
    """How the networks are built, by A1111's names; the defaults are those of files without."""

    layer_structure: tuple[float, ...] = (1.0, 2.0, 1.0)  # widths, in multiples of the context's
    activation_func: str | None = None
    is_layer_norm: bool = False
    activate_output: bool = True  # an activation after the last layer, too
    use_dropout: bool = False  # it acts in training alone, but counts in the names
    last_layer_dropout: bool = False
    dropout_structure: tuple[float, ...] | None = None  # after each layer; the first number is 0


class Hypernetwork(nn.Module):
    """The networks by width of context: a pair each, for keys and for values.

    Args:
        states: by width, the pair's tensors as files have them (``linear.0.weight``, ...).

    Raises:
        LayoutError: the tensors are not those of such networks.
    """

    def __init__(
        self,
        states: Mapping[int, Sequence[Mapping[str, Tensor]]],
        config: HypernetworkConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or HypernetworkConfig()
        self.pairs = nn.ModuleDict()
        for width, pair in states.items():
            if len(pair) != 2:
                raise LayoutError(f"width {width}: two networks are expected, got {len(pair)}")
            built = [_network(width, config) for _ in pair]
            for network, state in zip(built, pair, strict=True):
                _load(network, state, width)
            self.pairs[str(width)] = nn.ModuleList(built)
        self.requires_grad_(False).eval()

    def states(self) -> dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """As files have them; the inverse of the constructor."""
        found = {}
        for width, pair in self.pairs.items():
            assert isinstance(pair, nn.ModuleList)
            keys, values = (
                {f"linear.{name}": t.cpu() for name, t in net.state_dict().items()} for net in pair
            )
            found[int(width)] = keys, values
        return found

    def description(self) -> dict[str, Any]:
        """The other entries of a file."""
        said = asdict(self.config)
        lists = ("layer_structure", "dropout_structure")
        return {k: list(v) if k in lists and v is not None else v for k, v in said.items()}


class Attached(Hooked):
    """A hypernetwork acting in a U-Net until ``detach``; several act one after another, in order.

    Raises:
        ModelMismatchError: the U-Net has no attention of any of its widths, or is compiled.
    """

    def __init__(self, model: nn.Module, network: Hypernetwork, weight: float = 1.0) -> None:
        super().__init__(model)
        for attention in model.modules():
            if not isinstance(attention, Attention):
                continue
            width = _width(attention.k)
            if str(width) not in network.pairs:
                continue
            pair = network.pairs[str(width)]
            assert isinstance(pair, nn.ModuleList)
            for layer, net in zip((attention.k, attention.v), pair, strict=True):
                self._hooks.append(layer.register_forward_pre_hook(_before(net, weight)))
        if not self._hooks:
            raise ModelMismatchError(
                f"a hypernetwork for contexts of {', '.join(network.pairs)} channels finds none in "
                "this model: use one that was made for it"
            )


def _before(network: nn.Module, weight: float):
    def change(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (torch.add(args[0], network(args[0]), alpha=weight),)

    return change


def _width(layer: nn.Module) -> int:
    layer = plain(layer)
    assert isinstance(layer, nn.Linear)
    return layer.in_features


def _network(width: int, config: HypernetworkConfig) -> nn.Sequential:
    """Linear layers, each with activation, norm and dropout behind it where there are such.

    Raises:
        LayoutError: a structure that cannot be.
    """
    structure, activation = config.layer_structure, config.activation_func or "linear"
    if len(structure) < 2 or structure[0] != 1 or structure[-1] != 1 or min(structure) <= 0:
        raise LayoutError(f"layer_structure {[*structure]}: from 1 to 1 is expected")
    if activation not in ("linear", *ACTIVATIONS):
        raise LayoutError(
            f"activation_func {activation!r}: expected one of {', '.join(sorted(ACTIVATIONS))}"
        )
    widths = [int(width * part) for part in structure]
    last = len(structure) - 2
    layers: list[nn.Module] = []
    for index in range(last + 1):
        layers.append(nn.Linear(widths[index], widths[index + 1], device="meta"))
        if activation in ACTIVATIONS and (index < last or config.activate_output):
            layers.append(ACTIVATIONS[activation]())
        if config.is_layer_norm:
            layers.append(nn.LayerNorm(widths[index + 1], device="meta"))
        if _drops(index, config):
            layers.append(nn.Dropout(0.3))
    return nn.Sequential(*layers)


def _drops(index: int, config: HypernetworkConfig) -> bool:
    if config.dropout_structure is not None:
        return index + 1 < len(config.dropout_structure) and config.dropout_structure[index + 1] > 0
    before_last = len(config.layer_structure) - 3
    return config.use_dropout and (
        index < before_last or (config.last_layer_dropout and index == before_last)
    )


def _load(network: nn.Module, state: Mapping[str, Tensor], width: int) -> None:
    renamed = {}
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        renamed[f"{_OLD.get(path, path).removeprefix('linear.')}.{leaf}"] = tensor
    try:
        network.load_state_dict(renamed, assign=True)
    except (RuntimeError, AttributeError):
        wanted = {f"linear.{name}": [*t.shape] for name, t in network.state_dict().items()}
        found = {name: [*tensor.shape] for name, tensor in state.items()}
        wrong = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
        raise LayoutError(
            f"width {width}: {', '.join(sorted(wrong)[:5])} are not as its layer_structure, "
            "activation and norm have them"
        ) from None
