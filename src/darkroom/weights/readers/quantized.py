"""Weights that are not plain numbers: which of them are read, and what the others are called.

Read: float8 with a scale beside it, as ComfyUI writes it ("scaled fp8"): ``layer.scale_weight``
(or ``layer.weight_scale``) is what ``layer.weight`` is to be multiplied by, and an empty
``scaled_fp8`` says that the file is of this kind. ``scale_input`` is for products in float8 and
changes no weight. Everything else that packs weights into whole numbers is named, never read.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

EIGHT_BITS = frozenset(
    {"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}
)  # numbers of their own
WHOLE = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
FLOATS = EIGHT_BITS | {"float16", "bfloat16", "float32", "float64"}
SCALES = (".scale_weight", ".weight_scale")
MARK = "scaled_fp8"
ASIDE = (".scale_input", ".input_scale")
WEIGHTS = ("weight", "bias", "_w1", "_w2")
UNQUANTISED = "get the unquantised file (fp16, bf16 or fp32)"
# How the names of a file's tensors end, and who packs weights so.
PACKED: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".quant_state.bitsandbytes__nf4",), "nf4, quantised by bitsandbytes"),
    ((".quant_state.bitsandbytes__fp4",), "fp4, quantised by bitsandbytes"),
    ((".SCB", ".weight_format"), "int8, quantised by bitsandbytes"),
    ((".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"), "4-bit or 8-bit, quantised "
     "by bitsandbytes"),
    ((".wscales", ".smooth_factor", ".smooth_factor_orig"), "4-bit, quantised by SVDQuant "
     "(Nunchaku)"),
    ((".qzeros", ".g_idx"), "packed whole numbers, quantised by GPTQ or AWQ"),
    ((".qweight",), "packed whole numbers, quantised by GPTQ, AWQ or SVDQuant"),
    ((".weight._data", ".weight._packed", ".weight._scale"), "whole numbers, quantised by quanto"),
    ((".weight_packed", ".weight_zero_point"), "packed whole numbers, quantised by "
     "compressed-tensors"),
)  # fmt: skip


class Info(Protocol):
    """What a header says of a tensor."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def packed(infos: Mapping[str, Info]) -> str:
    """What the weights are, where they are packed into something that is not read; else ""."""
    for endings, what in PACKED:
        if any(name.endswith(endings) for name in infos):
            return what
    for name, info in infos.items():
        if info.dtype in WHOLE and info.shape and name.endswith(WEIGHTS):
            by = " for ComfyUI" if _stem(name) + ".comfy_quant" in infos else ""
            return f"{info.dtype}, quantised{by}"
    for name, scale in scales(infos).items():
        if infos[name].dtype not in FLOATS or not _fits(infos[scale].shape, infos[name].shape):
            return "scaled in blocks (MXFP8, NVFP4)"
    return ""


def scales(infos: Mapping[str, Info]) -> dict[str, str]:
    """For each weight that has a scale beside it, the name of the scale."""
    found = {}
    for name in infos:
        for ending in SCALES:
            weight = name.removesuffix(ending) + ".weight"
            if name.endswith(ending) and weight in infos:
                found[weight] = name
    return found


def is_scaled(names: Iterable[str]) -> bool:
    """Whether a file says that it is scaled fp8, or has scales."""
    return any(name.rpartition(".")[2] == MARK or name.endswith(SCALES) for name in names)


def aside(name: str, infos: Mapping[str, Info]) -> bool:
    """Whether a tensor is only about how others are packed."""
    if name.rpartition(".")[2] in (MARK, "comfy_quant"):
        return True
    return name.endswith((*SCALES, *ASIDE)) and _stem(name) + ".weight" in infos


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _fits(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether a scale is one number, or one for each row."""
    count = 1
    for length in scale:
        count *= length
    return count == 1 or (bool(weight) and scale[0] == weight[0] == count)
