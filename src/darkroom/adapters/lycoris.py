"""Changes of a layer that are more than ``up(down(x))``.

Those of LyCORIS (Yeh et al., arXiv:2309.14859), orthogonal ones (Qiu et al., arXiv:2306.07280; Liu
et al., arXiv:2311.06243) and weight decomposition (DoRA, Liu et al., arXiv:2402.09353).

Each is a difference D of the layer's weight W, always of the weight the model came with: a change
of weight w makes W + w D of it, and several add up, in whatever order. Which kind a change is, the
names of its tensors say, as files have them (see ``darkroom.weights.layouts.lora``).
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.adapters.lora import geometry, plain, shape_of, weight_of
from darkroom.errors import ModelMismatchError
from darkroom.nn.normalization import NormSilu

Named = Mapping[str, Tensor]


class Rebuilt(nn.Module):
    """The change of a linear or convolution layer, its difference built from small tensors.

    Args:
        layer: what it changes; gives shape, stride and padding, and is not kept.
        tensors: by role, such as ``hada_w1_a``; ``dora_scale`` may stand beside most.
        alpha: the scale is alpha / rank; for rotations it bounds them. None: no scale, no bound.
        scale: instead of alpha / rank.

    Raises:
        ModelMismatchError: the tensors make no known kind of change, or not of this shape.
    """

    def __init__(
        self,
        layer: nn.Module,
        tensors: Named,
        alpha: float | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.geometry = geometry(layer)
        self.alpha = alpha
        self.build, rank = _kind(tensors)
        self.scale = scale if scale is not None else (alpha / rank if alpha and rank else 1.0)
        self.tensors = nn.ParameterDict({role: nn.Parameter(t) for role, t in tensors.items()})
        self.depends = not {"oft_blocks", "oft_diag", "dora_scale", "magnitude"}.isdisjoint(tensors)
        self._cached: Tensor | None = None
        shape = shape_of(layer)
        shapes = {role: t.detach().to("meta") for role, t in tensors.items()}
        try:
            found = self._difference(shapes, torch.empty(shape, device="meta"))
        except (RuntimeError, IndexError, ValueError):
            found = None
        if found is None or found.shape != shape:
            said = ", ".join(f"{role} {tuple(t.shape)}" for role, t in tensors.items())
            raise ModelMismatchError(f"{said} do not fit a layer of weight {tuple(shape)}")
        bias, own = tensors.get("diff_b"), plain(layer).bias
        if bias is not None and (not isinstance(own, Tensor) or own.shape != bias.shape):
            has = f"a bias of {tuple(own.shape)}" if isinstance(own, Tensor) else "no bias"
            raise ModelMismatchError(f"diff_b {tuple(bias.shape)}: the layer has {has}")

    @torch.no_grad()
    def difference(self, layer: nn.Module) -> Tensor:
        """D, in float32, shaped like the layer's weight."""
        return self._difference(dict(self.tensors.items()), weight_of(layer).float())

    def bias_difference(self) -> Tensor | None:
        """That of the bias, where there is one."""
        return dict(self.tensors.items()).get("diff_b")

    def added(self, layer: nn.Module, x: Tensor, output: Tensor, weight: float) -> Tensor:
        """``output``, of the layer's input ``x``, with the change of this weight added."""
        change = self._cached
        if change is None or change.dtype != x.dtype or change.device != x.device:
            change = self.difference(layer).to(x)
            self._cached = change if self.depends else None
        bias = self.bias_difference()
        bias = None if bias is None else bias.to(x)
        if self.geometry is None:
            return torch.add(output, F.linear(x, change, bias), alpha=weight)
        return torch.add(output, F.conv2d(x, change, bias, *self.geometry), alpha=weight)

    def _difference(self, tensors: Named, weight: Tensor) -> Tensor:
        change = self.build({role: t.float() for role, t in tensors.items()}, weight, self.alpha)
        change = change.reshape(weight.shape) * self.scale
        for role in ("dora_scale", "magnitude"):
            if role in tensors:
                return _decomposed(weight, change, tensors[role].float(), role)
        return change


class NormChange(nn.Module):
    """The change of a norm's scale and shift (``w_norm``, ``b_norm``).

    Raises:
        ModelMismatchError: another number of channels, or no norm.
    """

    def __init__(self, layer: nn.Module, tensors: Named) -> None:
        super().__init__()
        if not isinstance(layer, nn.LayerNorm | nn.GroupNorm):
            raise ModelMismatchError(f"w_norm: a {type(layer).__name__} is no norm")
        for role, tensor in tensors.items():
            if tensor.shape != layer.weight.shape or "w_norm" not in tensors:
                raise ModelMismatchError(
                    f"{role} {tuple(tensor.shape)} does not fit a norm of {len(layer.weight)} "
                    "channels"
                )
        self.tensors = nn.ParameterDict({role: nn.Parameter(t) for role, t in tensors.items()})
        self.alpha, self.scale = None, 1.0

    def difference(self, layer: nn.Module) -> Tensor:
        """Of the scale."""
        return self.tensors["w_norm"].detach().float()

    def bias_difference(self) -> Tensor | None:
        """Of the shift."""
        return dict(self.tensors.items()).get("b_norm")

    def added(self, layer: nn.Module, x: Tensor, output: Tensor, weight: float) -> Tensor:
        """``output``, of the norm's input ``x``, with the change of this weight added."""
        assert isinstance(layer, nn.LayerNorm | nn.GroupNorm)
        scale, shift = self.tensors["w_norm"].to(x), self.bias_difference()
        shift = None if shift is None else shift.to(x)
        if isinstance(layer, nn.LayerNorm):
            change = F.layer_norm(x, [*layer.normalized_shape], scale, shift, layer.eps)
            return torch.add(output, change, alpha=weight)
        change = F.group_norm(x, layer.num_groups, scale, shift, layer.eps)
        if not isinstance(layer, NormSilu):
            return torch.add(output, change, alpha=weight)
        before = getattr(output, "before_silu", None)  # left there by another change
        if before is None:
            before = F.group_norm(x, layer.num_groups, layer.weight, layer.bias, layer.eps)
        before = torch.add(before, change, alpha=weight)
        changed = F.silu(before)
        changed.before_silu = before  # pyright: ignore[reportAttributeAccessIssue]
        return changed


def is_norm_change(tensors: Named) -> bool:
    """Whether these tensors change a norm."""
    return not {"w_norm", "b_norm"}.isdisjoint(tensors)


# --- the kinds

Build = Callable[[Named, Tensor, float | None], Tensor]


def _kind(tensors: Named) -> tuple[Build, int]:
    """How to build the difference, and its rank; 0 where there is none.

    Raises:
        ModelMismatchError: there is no such kind.
    """
    for needs, rank, build in KINDS:
        if all(role in tensors for role in needs):
            return build, tensors[rank].shape[0] if rank else 0
    raise ModelMismatchError(f"{', '.join(sorted(tensors))} make no known kind of change")


def _low_rank(tensors: Named, weight: Tensor, _: float | None) -> Tensor:
    down, up = tensors["down"], tensors["up"].flatten(1)
    if "mid" not in tensors:
        return up @ down.flatten(1)
    return torch.einsum("or,rs...,si->oi...", up, tensors["mid"], down.flatten(1))


def _hadamard(tensors: Named, weight: Tensor, _: float | None) -> Tensor:
    """(a1 b1) * (a2 b2), entry by entry; with cores t1 and t2 in between, as Tucker products."""
    sides = []
    for side in "12":
        a, b = tensors[f"hada_w{side}_a"], tensors[f"hada_w{side}_b"]
        core = tensors.get(f"hada_t{side}")
        sides.append(_tucker(core, a, b) if core is not None else a @ b)
    return sides[0] * sides[1]


def _kronecker(tensors: Named, weight: Tensor, _: float | None) -> Tensor:
    """The Kronecker product of w1 and w2, of which either may be given as a product of two."""
    first = tensors["lokr_w1"] if "lokr_w1" in tensors else _product(tensors, "lokr_w1")
    if "lokr_w2" in tensors:
        second = tensors["lokr_w2"]
    elif "lokr_t2" in tensors:
        second = _tucker(tensors["lokr_t2"], tensors["lokr_w2_a"], tensors["lokr_w2_b"])
    else:
        second = _product(tensors, "lokr_w2")
        kernel = weight.shape[2:]
        second = second.reshape(second.shape[0], -1, *kernel)
    first = first.reshape(*first.shape, *(1 for _ in second.shape[2:]))
    return torch.kron(first, second.contiguous())


def _product(tensors: Named, name: str) -> Tensor:
    return tensors[f"{name}_a"] @ tensors[f"{name}_b"].flatten(1)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(r, s, ...), (r, out) and (s, in) to (out, in, ...)."""
    return torch.einsum("rs...,ro,si->oi...", core, a, b)


def _given(tensors: Named, weight: Tensor, _: float | None) -> Tensor:
    return tensors["diff"]


def _rotated(tensors: Named, weight: Tensor, alpha: float | None) -> Tensor:
    """Blocks of output channels rotated, then scaled, minus the weight.

    ``oft_blocks`` are Q with R = (I + Q - Q^T) (I - Q + Q^T)^-1, ``oft_diag`` are R itself. With
    four axes the rotations are the stages of a butterfly.
    """
    if "oft_diag" in tensors:
        rotation = tensors["oft_diag"]
    else:
        blocks = tensors["oft_blocks"]
        skew = blocks - blocks.mT
        if alpha:
            bound = alpha * weight.shape[0]
            skew = skew * (bound / (torch.linalg.vector_norm(skew) + 1e-8)).clamp(max=1)
        one = torch.eye(skew.shape[-1], device=skew.device)
        rotation = (one + skew) @ torch.linalg.inv(one - skew)
    size = rotation.shape[-1]
    rows = weight.flatten(1)
    if rotation.ndim == 3:
        rows = rotation.mT @ rows.unflatten(0, (-1, size))
    else:
        for stage, blocks in enumerate(rotation):
            reach = 2**stage * size // 2  # channels so far apart meet in one block
            rows = rows.flatten(0, -2).unflatten(0, (-1, 2, reach)).transpose(1, 2)
            rows = blocks @ rows.flatten(0, 2).unflatten(0, (-1, size))
            rows = rows.flatten(0, 1).unflatten(0, (-1, reach, 2)).transpose(1, 2).flatten(0, 2)
    rows = rows.reshape(len(weight), -1)
    if "rescale" in tensors:
        rows = rows * tensors["rescale"].reshape(-1, 1)
    return rows.reshape(weight.shape) - weight


def _decomposed(weight: Tensor, change: Tensor, magnitude: Tensor, role: str) -> Tensor:
    """Rows (or, where the file has one for each input, columns) of given lengths.

    Raises:
        ValueError: as many lengths as neither rows nor columns.
    """
    merged = weight + change
    rows = role == "magnitude" or magnitude.ndim == 1 or magnitude.shape[0] == len(weight) != 1
    if rows and magnitude.ndim > 1 and role != "magnitude" and magnitude[0].numel() != 1:
        raise ValueError
    axis = 0 if rows else 1
    if magnitude.numel() != weight.shape[axis]:
        raise ValueError
    others = [n for n in range(weight.ndim) if n != axis]
    length = torch.linalg.vector_norm(merged, dim=others, keepdim=True)
    wanted = magnitude.reshape([-1 if n == axis else 1 for n in range(weight.ndim)])
    return merged * (wanted / length.clamp(min=torch.finfo(length.dtype).tiny)) - weight


KINDS: tuple[tuple[tuple[str, ...], str, Build], ...] = (  # roles it needs; the rank's, its first
    (("down", "up"), "down", _low_rank),
    (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "hada_w1_b", _hadamard),
    (("lokr_w1", "lokr_w2"), "", _kronecker),
    (("lokr_w1", "lokr_w2_a", "lokr_w2_b"), "lokr_w2_b", _kronecker),
    (("lokr_w1_a", "lokr_w1_b", "lokr_w2"), "lokr_w1_b", _kronecker),
    (("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"), "lokr_w2_b", _kronecker),
    (("diff",), "", _given),
    (("oft_blocks",), "", _rotated),
    (("oft_diag",), "", _rotated),
)
