"""Everything that decides a picture, as plain data that fits into its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from darkroom.config import from_dict, to_dict
from darkroom.errors import ConfigError

LARGEST_BATCH = 64  # pictures; one of a larger batch is drawn again alone
FORMAT = 1  # of the JSON; raised when a field changes its meaning


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """The picture that an image-to-image run started from: its hash, never the picture."""

    sha256: str  # of the pixels that the autoencoder saw: RGB, 8 bits, at the run's size
    strength: float
    posterior: str = "sample"  # or "mode"


@dataclass(frozen=True, kw_only=True)
class UsedLora:
    """One LoRA of a run. A file of this name must be there to draw the picture again."""

    name: str
    weight: float = 1.0  # of the U-Net's changes
    text_weight: float = 1.0  # of the text towers'
    sha256: str = ""  # of the file; "" = it came as tensors
    tagged: bool = False  # the prompt asks for it


@dataclass(frozen=True, kw_only=True)
class UsedEmbedding:
    """One textual inversion that a prompt used. A file of this name must be there again."""

    name: str
    sha256: str = ""  # of the file; "" = it came as vectors


@dataclass(frozen=True, kw_only=True)
class UsedHypernetwork:
    """One hypernetwork of a run. A file of this name must be there to draw the picture again."""

    name: str
    weight: float = 1.0
    sha256: str = ""  # of the file; "" = it came as networks
    tagged: bool = False  # the prompt asks for it


@dataclass(frozen=True, kw_only=True)
class UsedSelection:
    """How words led to a mask, whose pixels ``UsedInpaint.mask`` tells; see vision.select."""

    text: str
    segmenter: str = ""  # what proposed masks; "" = unknown
    encoder: str = ""  # what compared them with the text
    threshold: float | None = None  # None = the encoder's own
    against: tuple[str, ...] = ()  # other texts that could have been meant
    every: bool = False  # all that reach the threshold, not the best one alone
    grow: int = 0  # pixels


@dataclass(frozen=True, kw_only=True)
class UsedInpaint:
    """The picture that was edited, by its hash, and where; see generation.inpaint."""

    image: str = ""  # SHA-256 of the pixels that were given; "" = unknown
    mask: str = ""
    strength: float = 1.0
    only_masked: bool = False
    padding: int = 32
    harmonise: bool = False
    feather: int = 0
    extend: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, top, right, bottom
    posterior: str = "sample"  # or "mode"
    selected: UsedSelection | None = None  # None = the mask was given


@dataclass(frozen=True, kw_only=True)
class UsedDepth:
    """What told the depths, by its hash; see generation.control.depth."""

    photo: str = ""  # SHA-256 of the pixels, RGB, 8 bits, at the run's size; "" = none
    map: str = ""  # of the map that was given; "" = the model's own network told it
    strength: float | None = None  # None = the run did not start from the photo
    posterior: str = "sample"  # or "mode"


@dataclass(frozen=True, kw_only=True)
class UsedAnnotator:
    """What drew a hint of a photograph; see vision.annotators."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    network: str = ""  # that was named; "" = the kind's own, or none


@dataclass(frozen=True, kw_only=True)
class UsedControl:
    """One control network of a run, and its hint by its hash; see generation.control."""

    net: str  # a model of this name must be there again; "" = it came as a network
    fingerprint: str = ""  # of its weights
    hint: str = ""  # SHA-256 of the pixels, RGB, 8 bits, at the run's size
    weight: float = 1.0
    start: float = 0.0  # of the run, as a fraction of its network calls
    end: float = 1.0
    guess: bool = False
    fit: bool = False  # cropped to the run's aspect
    annotator: UsedAnnotator | None = None  # that drew the hint; None = unknown


@dataclass(frozen=True, kw_only=True)
class UsedRefiner:
    """The model that did the last steps."""

    name: str
    start: float  # as in generation.xl.refiner
    fingerprint: str = ""  # of its weights


@dataclass(frozen=True, kw_only=True)
class UsedNoise:
    """Whose noise, where it was another than a seed's own; see generation.seed_noise."""

    source: str = "cpu"  # torch's generator there, or on "cuda"
    variation: int | None = None  # the seed of a second noise
    strength: float = 0.0  # how much of that
    later: int = 0  # added to the seed for the noise of later steps


@dataclass(frozen=True, kw_only=True)
class UsedSizes:
    """What XL was told of sizes: (height, width), (top, left); see generation.xl.sizes."""

    original: tuple[int, int] | None = None
    crop: tuple[int, int] = (0, 0)
    target: tuple[int, int] | None = None
    score: float | None = None
    negative_original: tuple[int, int] | None = None
    negative_crop: tuple[int, int] | None = None
    negative_target: tuple[int, int] | None = None
    negative_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Another program that drew a picture, and how far its text tells how."""

    program: str
    missing: tuple[str, ...] = ()  # what it did that Darkroom does not do again
    questions: Mapping[str, str] = field(default_factory=dict)  # why a field must be said, by field


@dataclass(frozen=True, kw_only=True)
class Params:
    """How one picture was drawn. With the same weights it draws the same picture again.

    A text written by another program leaves fields at their defaults: "" and None mean unknown.
    """

    prompt: str
    negative: str | None = None
    seeds: tuple[int, ...] = (0,)  # of the whole batch: arithmetic depends on its size in low bits
    index: int = 0  # which image of the batch this is
    steps: int = 0
    sampler: str = ""
    spacing: str = ""
    timesteps: tuple[int, ...] = ()  # that were visited; ``spacing`` is then for other numbers
    options: Mapping[str, Any] = field(default_factory=dict)  # of the sampler
    size: tuple[int, int] = (0, 0)  # (height, width) in pixels
    guidance: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    split: bool = False  # the conditionings were evaluated one after another
    clip_skip: int = 0  # layers of the text tower left out at its end
    weighting: str = "a1111"  # of words in brackets; as in text.encoder
    image: SourceImage | None = None
    inpaint: UsedInpaint | None = None
    depth: UsedDepth | None = None
    controls: tuple[UsedControl, ...] = ()  # in the order in which they were given
    tile: bool = False  # decoded in tiles
    loras: tuple[UsedLora, ...] = ()  # in the order in which they were applied
    embeddings: tuple[UsedEmbedding, ...] = ()  # that the prompts use
    hypernetworks: tuple[UsedHypernetwork, ...] = ()  # in the order in which they act
    styles: tuple[str, ...] = ()  # whose words are in the prompts
    refiner: UsedRefiner | None = None
    sizes: UsedSizes | None = None
    noise: UsedNoise | None = None  # None = torch's on the CPU, of the seed alone
    extras: Mapping[str, Any] = field(default_factory=dict)  # of other features, by their name
    model: str = ""
    family: str = ""
    fingerprint: str = ""  # of the weights; see generation.redraw
    dtype: str = ""
    device: str = ""
    threads: int = 0  # of the CPU; another number may change the lowest bits
    notes: tuple[str, ...] = ()  # what went otherwise than asked
    origin: Origin | None = None  # None = Darkroom drew it
    darkroom: str = ""  # version
    torch: str = ""  # version

    @property
    def seed(self) -> int:
        """Of this picture."""
        return self.seeds[self.index]

    def alone(self) -> "Params":
        """Itself, drawn alone instead of in its batch; its lowest bits may differ."""
        return replace(self, seeds=(self.seed,), index=0)

    def to_plain(self) -> dict[str, Any]:
        """JSON-ready data that ``from_plain`` turns back into an equal value."""
        return {"format": FORMAT, **to_dict(self)}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "Params":
        """The inverse of ``to_plain``.

        Raises:
            ConfigError: on unknown fields, wrong types, or a newer format.
        """
        fields = dict(data)
        written = fields.pop("format", FORMAT)
        if not isinstance(written, int) or written > FORMAT:
            raise ConfigError(
                f"metadata of format {written!r}, this version reads up to {FORMAT}: "
                "update darkroom"
            )
        params = from_dict(cls, fields, "metadata")
        if not 0 <= params.index < len(params.seeds):
            raise ConfigError(
                f"metadata: index {params.index} lies outside of {len(params.seeds)} seeds"
            )
        return params
