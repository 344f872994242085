"""A dual encoder with its tokenizer: pictures and sentences to unit vectors of one space."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom import foreign
from darkroom.arguments import items, shown, string
from darkroom.atomic import atomic_write
from darkroom.errors import ArgumentError, CheckpointError, ImageError, ModelMismatchError
from darkroom.images import ImageLike, listed, open_image, peek, titled, to_square
from darkroom.keywords import explained
from darkroom.models.clip.network import Clip
from darkroom.models.contrastive import ContrastiveModel
from darkroom.models.dual_encoder import DualEncoder
from darkroom.names import ENCODER_MODEL
from darkroom.text.tokenizer import Tokenizer
from darkroom.text.wordpiece import WordPiece
from darkroom.weights.load import load
from darkroom.weights.locate import locate
from darkroom.weights.save import save

VIEW = "view.json"  # beside the weights: how pictures are brought to the model's size
BATCH = 32  # pictures at a time
LENGTH = 200  # tokens of a sentence at most, where the model has no limit of its own
CLIPS_WORDS = 49_408  # the size of CLIP's own vocabulary, which comes with Darkroom


@dataclass(frozen=True)
class Encoder:
    """What turns pictures and sentences into vectors whose dot product says how well they fit."""

    model: ContrastiveModel | DualEncoder | Clip
    tokenizer: Tokenizer | WordPiece
    size: int  # pixels of a side that the model looks at
    crop: bool = True  # it sees the middle square; else the whole picture, squeezed
    name: str = ""  # what it was opened by

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """(N, 3, size, size) uint8 -> (N, E) float32, on the CPU."""
        seen = (3, self.size, self.size)
        if not isinstance(pixels, Tensor) or pixels.shape[1:] != seen or pixels.is_floating_point():
            raise ArgumentError(
                f"pixels {shown(pixels)}: expected a uint8 tensor (N, 3, {self.size}, {self.size})"
                "; encode_image takes pictures of any kind"
            )
        place = self._place()
        return _unit(
            self.model.encode_image(part.to(place).float() / 255) for part in pixels.split(100)
        )

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (N, E) float32, on the CPU.

        Raises:
            ValueError: one is longer than a public CLIP reads; models of our own cut it.
        """
        parts = (texts[i : i + 500] for i in range(0, len(texts), 500))
        return _unit(self._text(part) for part in parts)

    def encode_image(self, images: ImageLike | Sequence[ImageLike]) -> Tensor:
        """Pictures -> (N, E) float32 of length one, on the CPU; read a batch at a time.

        Raises:
            ImageError: one cannot be read.
            ValueError: there are none.
        """
        given = list(listed(images))
        if not given:
            raise ArgumentError("no pictures to encode; give one or more")
        read = (self.read(image) for image in given)
        return torch.cat([self.images(torch.stack(part)) for part in _batches(read, BATCH)])

    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """Sentences -> (N, E) float32 of length one, on the CPU.

        Raises:
            ValueError: there are none, or one is longer than a public CLIP reads.
        """
        given = [texts] if isinstance(texts, str) else items("texts", texts, "a text or several")
        if not given:
            raise ArgumentError("no texts to encode; give one or more")
        return self.texts([string("text", one, "a text") for one in given])

    def similarity(
        self, images: ImageLike | Sequence[ImageLike], texts: str | Sequence[str]
    ) -> Tensor:
        """Cosines (N, M), -1 to 1, of N pictures and M sentences."""
        return self.encode_image(images) @ self.encode_text(texts).T

    def probabilities(
        self, images: ImageLike | Sequence[ImageLike], texts: str | Sequence[str]
    ) -> Tensor:
        """(N, M): how likely each of the M sentences is for a picture, if one of them is right."""
        return (self.scale * self.similarity(images, texts)).softmax(dim=-1)

    @property
    def scale(self) -> float:
        """What the model multiplies cosines by to have logits.

        The book's model compares vectors that are not of length one; a LayerNorm makes them about
        √E long, so E stands for it.
        """
        if isinstance(self.model, DualEncoder):
            return float(self.model.config.projection)
        return self.model.scale.item()

    def read(self, source: ImageLike) -> Tensor:
        """A picture as ``images`` takes it: (3, size, size) uint8.

        For a public CLIP the numbers are those of its own preprocessing, which shows what is
        behind transparency (black, mostly); for others it lies on white.

        Raises:
            ImageError: it cannot be read.
        """
        if isinstance(self.model, Clip):
            return self.model.config.view.pixels(open_image(source, alpha=True))
        return squared(source, self.size, self.crop)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a folder that ``open_encoder`` and ``load`` open."""
        path = save(self.model, folder)
        if isinstance(self.model, Clip):
            self.tokenizer.save(path)  # where transformers has it
            return path
        self.tokenizer.save(path / "tokenizer")
        with atomic_write(path / VIEW) as file:
            file.write(json.dumps({"size": self.size, "crop": self.crop}).encode())
        return path

    def _text(self, texts: Sequence[str]) -> Tensor:
        place = self._place()
        if isinstance(self.tokenizer, WordPiece):
            assert isinstance(self.model, DualEncoder)
            length = min(LENGTH, self.model.config.text.positions)
            ids, mask = self.tokenizer.batch(texts, length)
            return self.model.encode_text(ids.to(place), mask.to(place))
        assert isinstance(self.model, ContrastiveModel | Clip)
        length = self.model.config.text.positions
        if isinstance(self.model, Clip):
            _refuse_long(self.tokenizer, texts, length)
        ids = token_ids(self.tokenizer, texts, length)
        return self.model.encode_text(trimmed(ids, self.tokenizer.eos).to(place))

    def _place(self) -> torch.device:
        return next(self.model.parameters()).device


@explained
def open_encoder(
    name: str | os.PathLike[str] = ENCODER_MODEL,
    device: str | None = None,
    *,
    activation: str | None = None,
    accelerate: bool = True,
) -> Encoder:
    """Open a model that compares pictures and texts.

    Args:
        name: anything that ``load`` takes: what ``Encoder.save`` and ``darkroom train`` wrote, and
            public CLIPs: OpenAI's archives, open_clip's files and folders, transformers' folders.
        activation: "quick_gelu" or "gelu", for an open_clip file that does not say which.
        accelerate: as for ``load``.

    Raises:
        ModelNotFoundError: nothing is called that.
        ModelMismatchError: it is another kind of model.
        CheckpointError: the files cannot be used.
    """
    model = load(name, device=device, dtype="float32", activation=activation, accelerate=accelerate)
    path = locate(name).path
    if isinstance(model, Clip):
        view = model.config.view
        return Encoder(model, _words(path, model), view.size, view.fit == "crop", str(name))
    if not isinstance(model, ContrastiveModel | DualEncoder):
        raise ModelMismatchError(
            f"{name}: a {type(model).__name__}, which does not compare pictures and texts; "
            "train one: `darkroom train clip-flickr8k.toml`"
        )
    if not (path / "tokenizer").is_dir():
        raise CheckpointError(f"{path}: no tokenizer/ in it, so it cannot read words")
    try:
        view = foreign.read_object(path / VIEW, CheckpointError)
        size, crop = int(view["size"]), bool(view["crop"])
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path / VIEW}: not readable ({error}); it says how pictures are brought to size, "
            'as {"size": 224, "crop": false}'
        ) from None
    kind = WordPiece if isinstance(model, DualEncoder) else Tokenizer
    return Encoder(model, kind.from_folder(path / "tokenizer"), size, crop, str(name))


def _words(path: Path, model: Clip) -> Tokenizer:
    """The tokenizer that lies beside a CLIP, else CLIP's own.

    Raises:
        CheckpointError: neither is of the model's vocabulary.
    """
    words, end = model.config.text.vocabulary, model.config.text.end
    folder = path if path.is_dir() else path.parent
    beside = [
        place
        for place in (folder, folder / "tokenizer")
        if (place / "tokenizer.json").is_file() or (place / "vocab.json").is_file()
    ]
    if beside and (path.is_dir() or words != CLIPS_WORDS):
        tokenizer = Tokenizer.from_folder(beside[0])
    elif words == CLIPS_WORDS:
        tokenizer = Tokenizer.built_in()
    else:
        raise CheckpointError(
            f"{path}: a vocabulary of {words} words, and no tokenizer.json beside it; download it"
        )
    if len(tokenizer) > words or tokenizer.eos != end:
        raise CheckpointError(
            f"{path}: its tokenizer ends texts with {tokenizer.eos} of {len(tokenizer)} words, the "
            f"model with {end} of {words}; use the tokenizer that it came with"
        )
    return tokenizer


def squared(source: ImageLike, size: int, crop: bool = True) -> Tensor:
    """A picture as (3, size, size) uint8.

    Args:
        crop: the shorter side is scaled to ``size`` and the middle of the longer one is taken;
            else both sides are scaled to ``size``.

    Raises:
        ImageError: it cannot be read.
    """
    picture = peek(source)
    if picture.format == "JPEG":
        picture.draft("RGB", (size, size))  # decodes at a half, a quarter or an eighth
    try:
        image = open_image(picture)
    except ImageError as error:
        raise ImageError(str(error).replace("the picture", titled(source), 1)) from None
    return torch.from_numpy(np.array(to_square(image, size, crop))).permute(2, 0, 1)


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tensor:
    """(N, length) int64: begin, tokens, end, then end again as padding; cut to fit."""
    ids = torch.full((len(texts), length), tokenizer.eos)
    for row, text in zip(ids, texts, strict=True):
        body = tokenizer.encode(text)[: length - 2]
        row[: len(body) + 1] = torch.tensor([tokenizer.bos, *body])
    return ids


def _refuse_long(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> None:
    for text in texts:
        if (tokens := len(tokenizer.encode(text)) + 2) > length:
            raise ArgumentError(
                f"{text!r:.60}: {tokens} tokens, and the model reads {length}; shorten the text"
            )


def trimmed(ids: Tensor, end: int) -> Tensor:
    """Without the columns that hold padding alone; each row keeps its end."""
    longest = int((ids != end).sum(1).amax()) if len(ids) else 0
    return ids[:, : longest + 1]


def _batches(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _unit(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([F.normalize(part.float(), dim=-1).cpu() for part in parts])
