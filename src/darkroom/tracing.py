"""Look inside a network: what goes into and comes out of each of its blocks, and what that costs.

    print(trace(unet, (x, t, text)))          # the tree, with shapes, parameters, FLOPs, statistics
    print(trace(unet, (x, t, text))["down.4"])  # one block: each tensor that goes in and comes out
    print(summary(unet, (x, t, text)))        # shapes and costs alone; nothing is computed

A multiplication and the addition after it are two FLOPs. What is counted: convolutions, matrix
products and attention; the rest is small beside them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

INDENT = "  "


@dataclass(frozen=True)
class Statistics:
    """Of the finite values of a tensor; all 0 where there are none.

    ``std`` is of the population; ``nonfinite`` is the share of values that are infinite or NaN.
    """

    min: float
    max: float
    mean: float
    std: float
    nonfinite: float


@dataclass(frozen=True)
class Value:
    """One tensor that went in or came out; no statistics on the meta device."""

    shape: tuple[int, ...]
    dtype: str
    statistics: Statistics | None = None

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) or "scalar"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One module. Of several calls, ``inputs`` and ``outputs`` are those of the first.

    ``flops`` are of all calls, the blocks inside included. A list of blocks (``calls`` is 0, no
    inputs) has the sums of what it holds.
    """

    name: str  # path in the network; "" is the network itself
    kind: str  # its class
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    parameters: int
    flops: int
    calls: int

    @property
    def depth(self) -> int:
        """How many blocks it is inside of: 0 for the network itself."""
        return self.name.count(".") + 1 if self.name else 0

    def __str__(self) -> str:
        lines = [f"{self.name or self.kind}: {self.kind}, {self.parameters:,} parameters"]
        for side, values in (("in ", self.inputs), ("out", self.outputs)):
            for value in values:
                told = _told(value.statistics)
                lines.append(f"{INDENT}{side} {value!s:18} {value.dtype:9} {told}".rstrip())
        return "\n".join(lines)


@dataclass(frozen=True)
class Trace:
    """The blocks of one run, as a tree in the order in which they were called."""

    blocks: tuple[Block, ...]

    def __getitem__(self, name: str) -> Block:
        for block in self.blocks:
            if block.name == name:
                return block
        raise KeyError(f"no block {name!r} in this trace; see print(trace)")

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __str__(self) -> str:
        return self.table()

    def table(self, depth: int | None = None) -> str:
        """One line per block, down to ``depth``; statistics are those of the first output."""
        shown = [b for b in self.blocks if depth is None or b.depth <= depth]
        header = ["block", "class", "input", "output", "parameters", "FLOPs"]
        rows = [_row(block) for block in shown]
        if any(value.statistics for block in shown for value in block.outputs):
            header += ["min", "max", "mean", "std", "nonfinite"]
            for row, block in zip(rows, shown, strict=True):
                row += _numbers(block.outputs[0].statistics if block.outputs else None)
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i < 4 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (header, *rows)
        )

    def to_plain(self) -> list[dict[str, Any]]:
        """The blocks as plain data, for JSON."""
        return [asdict(block) for block in self.blocks]

    def differences(self, other: "Trace", tolerance: float = 1e-3) -> list[str]:
        """Where ``other`` departs from this trace, one line per block, in the order of calls.

        Args:
            tolerance: for statistics, relative to the largest magnitude of the tensor here.
        """
        theirs = {block.name: block for block in other.blocks}
        lines = [
            f"{block.name or block.kind}: {problem}"
            for block in self.blocks
            if (problem := _departs(block, theirs.pop(block.name, None), tolerance))
        ]
        return lines + [f"{name}: only in the other" for name in theirs]


def trace(
    model: nn.Module,
    inputs: Any,
    depth: int | None = None,
    *,
    call: str = "forward",
    statistics: bool = True,
) -> Trace:
    """Run ``model`` once, without gradients, and record every block.

    With inputs on the meta device nothing is computed, and the weights are not read, wherever
    they are. The hooks are gone afterwards, also after an error, which names the block it rose in.
    The model stays in its mode: batch normalisation in training mode counts this run.

    Args:
        inputs: the arguments: a tensor, a sequence of them, or a mapping of names.
        depth: how deep to look; 1 = the model's own blocks; None = all the way.
        call: the method to run, for a model that has others ("encode", "decode").
        statistics: whether to look at the values; costs a pass over each tensor.
    """
    return _run(model, _arguments(inputs), depth, call, statistics)


def summary(model: nn.Module, inputs: Any, depth: int = 4, *, call: str = "forward") -> str:
    """The tree of a network with shapes, parameters and FLOPs; nothing is computed.

    Arguments as for ``trace``.
    """
    found = _run(model, _on_meta(_arguments(inputs)), depth, call, statistics=False)
    whole = found[""]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return (
        f"{found}\n\n{whole.parameters:,} parameters ({trainable:,} trainable, "
        f"{size / 1e6:,.1f} MB), {_short(whole.flops)} FLOPs"
    )


def _run(
    model: nn.Module,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    depth: int | None,
    call: str,
    statistics: bool,
) -> Trace:
    positional, named = arguments
    meta = any(tensor.is_meta for tensor in _tensors(arguments))
    recorder = _Recorder(model, depth, statistics and not meta)
    target = _Method(model, call)
    handles = []
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_more()) as counter:
            recorder.counter = counter
            for name, module in model.named_modules():
                if name:
                    handles.append(
                        module.register_forward_pre_hook(recorder.before(name), with_kwargs=True)
                    )
                    handles.append(
                        module.register_forward_hook(recorder.after(name), with_kwargs=True)
                    )
            recorder.before("")(model, positional, named)
            if meta:
                state = {name: tensor.to("meta") for name, tensor in _state(target)}
                output = torch.func.functional_call(target, state, positional, named)
            else:
                output = target(*positional, **named)
            recorder.after("")(model, positional, named, output)
    except Exception as error:
        if len(recorder.running) > 1:
            error.add_note(f"in the block {recorder.running[-1]}")
        raise
    finally:
        for handle in handles:
            handle.remove()
    return recorder.trace()


class _Method(nn.Module):
    """A model whose forward is one of its methods."""

    def __init__(self, model: nn.Module, call: str) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return (self.model if self.call == "forward" else getattr(self.model, self.call))(
            *args, **kwargs
        )


class _Recorder:
    def __init__(self, model: nn.Module, depth: int | None, statistics: bool) -> None:
        self.modules = dict(model.named_modules())
        self.depth, self.statistics = depth, statistics
        self.counter: FlopCounterMode | None = None
        self.running: list[str] = []
        self.began: list[int] = []
        self.order: dict[str, int] = {}  # when a block was first called
        self.inputs: dict[str, tuple[Value, ...]] = {}
        self.outputs: dict[str, tuple[Value, ...]] = {}
        self.calls: dict[str, int] = {}
        self.flops: dict[str, int] = {}

    def before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.running.append(name)
            if name not in self.order:
                self.order[name] = len(self.order)
                self.inputs[name] = self.values(name, (args, kwargs))
            self.began.append(self.total())

        return hook

    def after(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self.running.pop()
            self.flops[name] = self.flops.get(name, 0) + self.total() - self.began.pop()
            self.calls[name] = self.calls.get(name, 0) + 1
            if name not in self.outputs:
                self.outputs[name] = self.values(name, output)

        return hook

    def total(self) -> int:
        assert self.counter is not None
        return self.counter.get_total_flops()

    def values(self, name: str, held: Any) -> tuple[Value, ...]:
        if not self.shown(name):
            return ()
        return tuple(
            Value(
                tuple(tensor.shape),
                str(tensor.dtype).removeprefix("torch."),
                _statistics(tensor) if self.statistics and tensor.numel() else None,
            )
            for tensor in _tensors(held)
        )

    def shown(self, name: str) -> bool:
        return self.depth is None or not name or name.count(".") < self.depth

    def trace(self) -> Trace:
        children: dict[str, list[str]] = {name: [] for name in self.modules}
        for name in self.modules:
            if name:
                children[name.rpartition(".")[0]].append(name)
        return Trace(tuple(self.tree("", children)))

    def tree(self, name: str, children: Mapping[str, list[str]]) -> Iterator[Block]:
        """A block and what is in it, in the order of the first calls."""
        parameters = sum(p.numel() for p in self.modules[name].parameters())
        if not self.shown(name) or not (parameters or self.began_at(name, children) < NEVER):
            return
        yield Block(
            name=name,
            kind=self.modules[name]._get_name(),  # that of a faster twin is the layer's
            inputs=self.inputs.get(name, ()),
            outputs=self.outputs.get(name, ()),
            parameters=parameters,
            flops=self.cost(name, children),
            calls=self.calls.get(name, 0),
        )
        for child in sorted(children[name], key=lambda child: self.began_at(child, children)):
            yield from self.tree(child, children)

    def began_at(self, name: str, children: Mapping[str, list[str]]) -> int:
        """When a block was first called; a mere list of blocks: when the first of them was."""
        if name in self.order:
            return self.order[name]
        return min((self.began_at(child, children) for child in children[name]), default=NEVER)

    def cost(self, name: str, children: Mapping[str, list[str]]) -> int:
        if name in self.flops:
            return self.flops[name]
        return sum(self.cost(child, children) for child in children[name])


NEVER = 1 << 60


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, list | tuple) else ((inputs,), {})


def _tensors(held: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, Mapping):
        for item in held.values():
            yield from _tensors(item)
    elif isinstance(held, list | tuple):
        for item in held:
            yield from _tensors(item)


def _on_meta(held: Any) -> Any:
    if isinstance(held, Tensor):
        return held.to("meta")
    if isinstance(held, dict):
        return {key: _on_meta(item) for key, item in held.items()}
    return tuple(_on_meta(item) for item in held) if isinstance(held, list | tuple) else held


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _statistics(tensor: Tensor) -> Statistics:
    values = tensor.detach().flatten()
    values = values if values.dtype == torch.float64 else values.float()
    finite = values[values.isfinite()]
    share = 1 - finite.numel() / values.numel()
    if not finite.numel():
        return Statistics(0.0, 0.0, 0.0, 0.0, share)
    std, mean = torch.std_mean(finite, correction=0)
    low, high = finite.aminmax()
    return Statistics(low.item(), high.item(), mean.item(), std.item(), share)


def _more() -> dict[Any, Callable[..., int]]:
    """Operations that PyTorch's own counter leaves out on a CPU."""

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def convolution(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return conv_flop_count(x, weight, out_shape)

    def linear(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return 2 * torch.Size(out_shape).numel() * x[-1]

    found: dict[Any, Callable[..., int]] = {}
    for package, name, rule in (
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", attention),
        (torch.ops.mkldnn, "_convolution_pointwise", convolution),
        (torch.ops.mkldnn, "_linear_pointwise", linear),
    ):
        if hasattr(package, name):
            found[getattr(package, name)] = rule
    return found


def _departs(mine: Block, theirs: Block | None, tolerance: float) -> str:
    if theirs is None:
        return "not in the other"
    if mine.kind != theirs.kind:
        return f"{mine.kind}, in the other {theirs.kind}"
    for side in ("inputs", "outputs"):
        ours, others = getattr(mine, side), getattr(theirs, side)
        if [v.shape for v in ours] != [v.shape for v in others]:
            return f"{side} {_shapes(ours)}, in the other {_shapes(others)}"
        for a, b in zip(ours, others, strict=True):
            if a.statistics is None or b.statistics is None:
                continue
            scale = max(abs(a.statistics.min), abs(a.statistics.max), 1e-30)
            for name, value in asdict(a.statistics).items():
                other = getattr(b.statistics, name)
                if abs(value - other) > tolerance * (1.0 if name == "nonfinite" else scale):
                    return f"{side} {a}: {name} {value:.4g}, in the other {other:.4g}"
    return ""


def _row(block: Block) -> list[str]:
    repeated = f" ({block.calls} calls)" if block.calls > 1 else ""
    return [
        INDENT * block.depth + (block.name.rpartition(".")[2] or block.kind),
        block.kind + repeated,
        _shapes(block.inputs),
        _shapes(block.outputs),
        f"{block.parameters:,}" if block.parameters else "",
        _short(block.flops) if block.flops else "",
    ]


def _shapes(values: Sequence[Value], most: int = 3) -> str:
    more = f" +{len(values) - most}" if len(values) > most else ""
    return " ".join(map(str, values[:most])) + more


def _numbers(statistics: Statistics | None) -> list[str]:
    if statistics is None:
        return [""] * 5
    share = f"{statistics.nonfinite:.2%}" if statistics.nonfinite else ""
    s = statistics
    return [*(f"{value:.4g}" for value in (s.min, s.max, s.mean, s.std)), share]


def _told(statistics: Statistics | None) -> str:
    if statistics is None:
        return ""
    s = statistics
    broken = f", {s.nonfinite:.2%} not finite" if s.nonfinite else ""
    return f"min {s.min:.4g}, max {s.max:.4g}, mean {s.mean:.4g}, std {s.std:.4g}{broken}"


def _short(count: int) -> str:
    """803273441280 -> '803.3 G'."""
    value, unit = float(count), ""
    for unit in ("", " k", " M", " G", " T"):
        if value < 1000 or unit == " T":
            break
        value /= 1000
    return f"{value:.4g}{unit}"
