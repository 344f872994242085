"""Where transformers and MiDaS keep DPT."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isqrt

from torch import Tensor

from darkroom.models.dpt.network import DPT, DPT_HYBRID, DPT_LARGE, PATCH, DPTConfig
from darkroom.models.dpt.stem import StemConfig
from darkroom.models.dpt.view import View
from darkroom.weights.layout import Entry, Layout, Table, convert, under, unused

QKV = "qkv"
STEM_BLOCK: Table = {
    **{f"{kind}{n}": f"{kind}{n}" for n in (1, 2, 3) for kind in ("conv", "norm")},
    "downsample.conv": "skip.0",
    "downsample.norm": "skip.1",
}
TRANSFORMERS_BLOCK: Table = {
    "layernorm_before": "norm1",
    "attention.attention.query": "attention.q",
    "attention.attention.key": "attention.k",
    "attention.attention.value": "attention.v",
    "attention.output.dense": "attention.out",
    "layernorm_after": "norm2",
    "intermediate.dense": "up",
    "output.dense": "down",
}
TIMM_BLOCK: Table = {
    "norm1": "norm1",
    "attn.proj": "attention.out",
    "norm2": "norm2",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
}


def transformers(config: DPTConfig) -> Iterator[Entry]:
    """The names of DPTForDepthEstimation.

    It has a norm after the last layer and a skip for the coarsest scale, which no output depends
    on; published files lack the latter.
    """
    start = "dpt.embeddings"
    yield Entry(f"{start}.cls_token", "token", bare=True)
    yield Entry(f"{start}.position_embeddings", "position", bare=True)
    if config.stem:
        yield Entry(f"{start}.projection", "patches")
        bit = f"{start}.backbone.bit"
        yield from under(f"{bit}.embedder", "stem", {"convolution": "input", "norm": "norm"})
        yield from stages(config.stem, f"{bit}.encoder.stages", "layers")
    else:
        yield Entry(f"{start}.patch_embeddings.projection", "patches")
    for n in range(config.layers):
        yield from under(f"dpt.encoder.layer.{n}", f"blocks.{n}", TRANSFORMERS_BLOCK)
    yield from unused("dpt.layernorm")
    scales = len(config.widths)
    for ours, theirs in enumerate(range(scales - len(config.taps), scales)):
        stage, reassemble = "neck.reassemble_stage", f"reassemble.{ours}"
        yield Entry(f"{stage}.readout_projects.{theirs}.0", f"{reassemble}.readout")
        yield Entry(f"{stage}.layers.{theirs}.projection", f"{reassemble}.project")
        yield Entry(f"{stage}.layers.{theirs}.resize", f"{reassemble}.resize")
    for n in range(scales):
        yield Entry(f"neck.convs.{n}", f"narrow.{n}")
        fusion = f"neck.fusion_stage.layers.{scales - 1 - n}"
        yield from fused(
            fusion, n, ("projection", "residual_layer1", "residual_layer2", "convolution"), scales
        )
    yield from (Entry(f"head.head.{n}", f"head.{n}") for n in (0, 2, 4))


def midas(config: DPTConfig, prefix: str = "") -> Iterator[Entry]:
    """The names of MiDaS 3.0: timm's vision transformer, its taps, and the rest "from scratch".

    Args:
        prefix: before all of them, with its dot.
    """
    model = f"{prefix}pretrained.model"
    yield Entry(f"{model}.cls_token", "token", bare=True)
    yield Entry(f"{model}.pos_embed", "position", bare=True)
    yield Entry(f"{model}.patch_embed.proj", "patches")
    if config.stem:
        bit = f"{model}.patch_embed.backbone"
        yield from under(f"{bit}.stem", "stem", {"conv": "input", "norm": "norm"})
        yield from stages(config.stem, f"{bit}.stages", "blocks")
    for n in range(config.layers):
        theirs, ours = f"{model}.blocks.{n}", f"blocks.{n}"
        yield from under(theirs, ours, TIMM_BLOCK)
        for leaf in ("weight", "bias"):
            parts = tuple(f"{ours}.attention.{name}.{leaf}" for name in QKV)
            yield Entry(f"{theirs}.attn.qkv.{leaf}", parts, bare=True)
    yield from unused(f"{model}.norm", f"{model}.head")  # of the classifier it once was
    scales = len(config.widths)
    for ours, theirs in enumerate(range(scales - len(config.taps), scales)):
        tap, reassemble = f"{prefix}pretrained.act_postprocess{theirs + 1}", f"reassemble.{ours}"
        yield Entry(f"{tap}.0.project.0", f"{reassemble}.readout")
        yield Entry(f"{tap}.3", f"{reassemble}.project")
        yield Entry(f"{tap}.4", f"{reassemble}.resize")
    for n in range(scales):
        yield Entry(f"{prefix}scratch.layer{n + 1}_rn", f"narrow.{n}")
        fusion = f"{prefix}scratch.refinenet{n + 1}"
        yield from fused(fusion, n, ("out_conv", "resConfUnit1", "resConfUnit2", "conv"), scales)
    yield from (Entry(f"{prefix}scratch.output_conv.{n}", f"head.{n}") for n in (0, 2, 4))


def stages(config: StemConfig, theirs: str, layers: str) -> Iterator[Entry]:
    """The stem's stages; both call what is inside a block the same."""
    for stage, count in enumerate(config.blocks):
        for n in range(count):
            yield from under(
                f"{theirs}.{stage}.{layers}.{n}", f"stem.stage.{stage}.{n}", STEM_BLOCK
            )


def fused(
    theirs: str, scale: int, names: tuple[str, str, str, str], scales: int
) -> Iterator[Entry]:
    """One fusion block; ``names`` are those of its end, its two units and their convolutions."""
    end, skip, refine, convolution = names
    ours = f"fusion.{scale}"
    yield Entry(f"{theirs}.{end}", f"{ours}.out")
    units = {refine: "refine"} if scale == scales - 1 else {skip: "skip", refine: "refine"}
    for unit, name in units.items():
        for n in (1, 2):
            yield Entry(f"{theirs}.{unit}.{convolution}{n}", f"{ours}.{name}.conv{n}")
    if scale == scales - 1:
        yield from unused(f"{theirs}.{skip}")


MIDAS_VIEW = View(keep_aspect=True, multiple=32)  # what MiDaS feeds it; its files do not say
MIDAS_EPS = 1e-6  # timm's
PRESETS = {"dpt-hybrid": DPT_HYBRID, "dpt-large": DPT_LARGE}
MIDAS_PRESETS = {
    name: replace(config, view=MIDAS_VIEW, eps=MIDAS_EPS) for name, config in PRESETS.items()
}
TRANSFORMERS = Layout("transformers-dpt", "dpt.embeddings.", transformers, DPT, PRESETS)
MIDAS = Layout("midas-dpt", "pretrained.model.", midas, DPT, MIDAS_PRESETS)


def either(config: DPTConfig) -> Iterator[Entry]:
    """The names of both, for files that come alone."""
    yield from midas(config)
    yield from transformers(config)


EITHER = Layout("dpt", "", either, DPT, MIDAS_PRESETS)
# more of everything than any file has: its names tell which are there
LARGEST = replace(DPT_HYBRID, layers=64, stem=replace(StemConfig(), blocks=(64, 64, 64)))
HEAD_CHANNELS = 64  # per attention head, where no config tells


def dpt_sizes(state: Mapping[str, Tensor]) -> DPTConfig:
    """The config of a file without one, by its names and shapes.

    Heads are taken to be 64 wide, and the last layer of each quarter to be read.

    Raises:
        KeyError: a tensor that tells a size is missing.
        ValueError: the heads cannot be told.
    """
    hybrid = any(".backbone." in name for name in state)
    largest = LARGEST if hybrid else replace(DPT_LARGE, layers=64)
    ours = convert(state, either(largest))
    channels, places = ours["token"].shape[-1], ours["position"].shape[1]
    if channels % HEAD_CHANNELS:
        raise ValueError(
            f"{channels} channels are not whole heads of {HEAD_CHANNELS}; load a folder with its "
            "config.json"
        )
    layers = _count(ours, "blocks.")
    scales = _count(ours, "narrow.")
    taps = _count(ours, "reassemble.")
    quarters = tuple(layers * (n + 1) // scales - 1 for n in range(scales))
    return DPTConfig(
        stem=_stem_sizes(ours) if hybrid else None,
        grid=isqrt(places - 1),
        channels=channels,
        layers=layers,
        heads=channels // HEAD_CHANNELS,
        hidden=ours["blocks.0.up.weight"].shape[0],
        eps=MIDAS_EPS,
        taps=quarters[-taps:],
        scales=tuple(_scale(ours.get(f"reassemble.{n}.resize.weight")) for n in range(taps)),
        widths=tuple(ours[f"narrow.{n}.weight"].shape[1] for n in range(scales)),
        features=ours["narrow.0.weight"].shape[0],
        view=replace(MIDAS_VIEW, size=(isqrt(places - 1) * PATCH,) * 2),
    )


def _stem_sizes(ours: Mapping[str, Tensor]) -> StemConfig:
    count = range(_count(ours, "stem.stage."))
    return StemConfig(
        channels=ours["stem.input.weight"].shape[0],
        widths=tuple(ours[f"stem.stage.{n}.0.conv3.weight"].shape[0] for n in count),
        blocks=tuple(_count(ours, f"stem.stage.{n}.") for n in count),
    )


def _count(ours: Mapping[str, Tensor], start: str) -> int:
    return len({name.removeprefix(start).split(".")[0] for name in ours if name.startswith(start)})


def _scale(resize: Tensor | None) -> float:
    """By the kernel: 3 wide halves the resolution; another one is as wide as it enlarges."""
    if resize is None:
        return 1
    side = resize.shape[-1]
    return 0.5 if side == 3 else side
