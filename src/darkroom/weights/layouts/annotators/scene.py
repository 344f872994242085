"""Where upernet_global_small.pth keeps the network for scenes: mmsegmentation's names."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from darkroom.models.annotators.scene import CONVOLUTIONAL, POOLED, Scene, SceneConfig
from darkroom.weights.layout import Entry, Layout, Table, under, unused

NORMED: Table = {"conv": "conv", "bn": "norm"}
LOCAL: Table = {
    "pos_embed": "position",
    "norm1": "norm1",
    "conv1": "before",
    "attn": "filter",
    "conv2": "after",
    "norm2": "norm2",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
}
GLOBAL: Table = {
    "pos_embed": "position",
    "norm1": "norm1",
    "attn.qkv": "qkv",
    "attn.proj": "out",
    "norm2": "norm2",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
}


def entries(config: SceneConfig) -> Iterator[Entry]:
    """The names of UniFormer and of UPerHead; the auxiliary head serves training only."""
    for index, blocks in enumerate(config.blocks):
        theirs, ours = f"backbone.{{}}{index + 1}", f"scale.{index}"
        yield Entry(theirs.format("patch_embed") + ".proj", f"{ours}.patches")
        yield Entry(theirs.format("patch_embed") + ".norm", f"{ours}.patch_norm")
        yield Entry(theirs.format("norm"), f"{ours}.norm")
        table = LOCAL if index < CONVOLUTIONAL else GLOBAL
        for block in range(blocks):
            yield from under(f"{theirs.format('blocks')}.{block}", f"{ours}.block.{block}", table)
    for index in range(len(POOLED)):
        yield from under(f"decode_head.psp_modules.{index}.1", f"pooled.{index}", NORMED)
    for index in range(len(config.channels) - 1):
        yield from under(f"decode_head.lateral_convs.{index}", f"lateral.{index}", NORMED)
        yield from under(f"decode_head.fpn_convs.{index}", f"smooth.{index}", NORMED)
    yield from under("decode_head.bottleneck", "coarsest", NORMED)
    yield from under("decode_head.fpn_bottleneck", "fuse", NORMED)
    yield Entry("decode_head.conv_seg", "output")
    yield from unused("auxiliary_head")


UPERNET = Layout(
    "UperNet with UniFormer", "decode_head.psp_modules.", entries, Scene, {"small": SceneConfig()}
)


def scene_sizes(state: Mapping[str, Tensor]) -> SceneConfig:
    """The config of a file, by its names and shapes.

    Raises:
        KeyError: a tensor that tells a size is missing, as with another backbone.
    """
    channels = tuple(
        state[f"backbone.patch_embed{index}.proj.weight"].shape[0] for index in range(1, 5)
    )
    return SceneConfig(
        channels=channels,
        blocks=tuple(
            sum(name.startswith(f"backbone.blocks{index}.") and name.endswith(".norm1.bias")
                for name in state)
            for index in range(1, 5)
        ),
        decoder=state["decode_head.bottleneck.conv.weight"].shape[0],
        classes=state["decode_head.conv_seg.weight"].shape[0],
    )  # fmt: skip
