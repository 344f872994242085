"""Sizes of segment-anything networks, the published ones among them."""

from dataclasses import dataclass

from darkroom.config import Count, Size


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    """A vision transformer whose attention sees windows, in a few layers everything."""

    patch: Size = 16  # pixels of a side
    channels: Size = 768
    layers: Count = 12
    heads: Size = 12
    hidden: Size = 3072  # width of the feed-forward
    window: Size = 14  # patches of a side
    global_layers: tuple[Count, ...] = (2, 5, 8, 11)  # those that see everything, from 0
    eps: float = 1e-6  # of the blocks' norms


@dataclass(frozen=True, kw_only=True)
class TinyVitConfig:
    """TinyViT: a stage of convolutions, then stages of attention within windows."""

    channels: tuple[Size, ...] = (64, 128, 160, 320)  # per stage
    blocks: tuple[Count, ...] = (2, 2, 6, 2)  # per stage
    heads: tuple[Size, ...] = (4, 5, 10)  # per stage, from the second on
    windows: tuple[Size, ...] = (7, 14, 7)  # places of a side, per stage, from the second on
    strides: tuple[Size, ...] = (2, 2, 1)  # between the stages; the stem's is 4
    expansion: Size = 4  # of the convolutions of the first stage, and of every feed-forward

    @property
    def patch(self) -> int:
        """Pixels of the picture to a place of the features, of a side."""
        stride = 4
        for step in self.strides:
            stride *= step
        return stride


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The transformer that turns a picture's features and prompts into masks."""

    layers: Count = 2
    heads: Size = 8
    hidden: Size = 2048  # width of the feed-forward
    narrowing: Size = 2  # between tokens and picture, attention has channels / narrowing
    candidates: Size = 3  # masks for a prompt of which it is not sure; one more for a sure one
    iou_hidden: Size = 256
    iou_layers: Size = 3
    eps: float = 1e-5  # of the blocks' norms; the last norm's is 1e-5 always


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """Raises ValueError where sizes do not divide each other as they must."""

    size: Size = 1024  # pixels of a side
    channels: Size = 256  # of features, prompts and decoder
    mask_channels: Size = 16  # while a mask of before becomes features
    encoder: VitConfig | TinyVitConfig = VitConfig()
    decoder: DecoderConfig = DecoderConfig()

    @property
    def grid(self) -> int:
        """Places of a side of the features; logits have four times as many."""
        return self.size // self.encoder.patch

    def __post_init__(self) -> None:
        encoder, decoder = self.encoder, self.decoder
        inner = self.channels // max(1, decoder.narrowing)
        if isinstance(encoder, VitConfig):
            stages = [(encoder.channels, encoder.heads)]
        else:
            count = len(encoder.channels)
            others = {len(encoder.heads), len(encoder.windows), len(encoder.strides)}
            if others != {count - 1} or len(encoder.blocks) != count:
                raise ValueError(
                    f"{count} stages of channels need as many blocks, and heads, windows and "
                    "strides of all but one"
                )
            stages = zip(encoder.channels[1:], encoder.heads, strict=True)
        for whole, part, what in (
            (self.size, encoder.patch, "size by the patch"),
            (self.channels, 8, "channels by 8"),
            (self.channels, decoder.narrowing, "channels by the decoder's narrowing"),
            (self.channels, decoder.heads, "channels by the decoder's heads"),
            (inner, decoder.heads, "channels / narrowing by the decoder's heads"),
            (self.mask_channels, 4, "mask_channels by 4"),
            *((width, heads, "the encoder's channels by its heads") for width, heads in stages),
        ):
            if part < 1 or whole < 1 or whole % part:
                raise ValueError(f"{what}: {part} does not divide {whole}")


SAM_B = SamConfig()
SAM_L = SamConfig(
    encoder=VitConfig(
        channels=1024, layers=24, heads=16, hidden=4096, global_layers=(5, 11, 17, 23)
    )
)
SAM_H = SamConfig(
    encoder=VitConfig(
        channels=1280, layers=32, heads=16, hidden=5120, global_layers=(7, 15, 23, 31)
    )
)
MOBILE_SAM = SamConfig(encoder=TinyVitConfig())
