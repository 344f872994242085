"""Cut-outs over grounds, with words: what teaches an encoder to know a thing wherever it lies.

Every picture of a batch is made anew: a ground (a colour, a gradient, a pattern, a piece of a
photograph), a cut-out that is moved, turned, scaled, mirrored and now and then recoloured, and
sometimes parts of others around or before it. Some grounds stay empty and are named as such, so
that the encoder knows nothing when it sees it. All is drawn from the step's generator.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom.config import Count
from darkroom.errors import ConfigError
from darkroom.images import ImageLike
from darkroom.recipes.clip.reading import Learnt, Measured
from darkroom.recipes.clip.retrieval import SHOWN
from darkroom.text.tokenizer import Tokenizer
from darkroom.training.augment import TINTS, colour, tint
from darkroom.training.captions import article
from darkroom.training.data import captioned, open_data
from darkroom.training.data.held_out import split
from darkroom.training.data.labelled import Images
from darkroom.training.fit import Draw
from darkroom.vision.encoder import token_ids

if TYPE_CHECKING:
    from darkroom.recipes.clip import Config

EMPTY = ("plain background", "patterned background", "photographic background")
SIDED = re.compile(r"left|right|clockwise|arrow|button|indicator|keycap|mark", re.IGNORECASE)
COLOURED = re.compile("|".join(rf"\b{name}\b" for name in (*TINTS, "white", "grey", "hair")))


@dataclass(frozen=True, kw_only=True)
class Composing:
    """The table ``[compose]``. Fractions are of a batch, lengths of a picture's side."""

    photographs: Path | None = None  # for grounds; any format that ``open_data`` knows
    held: int = 2000  # of them, at most
    templates: tuple[str, ...] = ("{}", "the {}", "a {}", "a photo of a {}")
    noun: str = ""  # what all the cut-outs are
    tagged: float = 0.2  # captions made of tags alone
    rare: float = 0.08  # pictures whose row has ``skin_tone`` set
    tinted: float = 0.12  # recoloured, and said to be
    untinted: tuple[str, ...] = ()  # groups of rows that never are: people
    company: float = 0.4  # with others around
    blurred: float = 0.3  # as if enlarged
    empty: Count = 3  # grounds with nothing on them: one of each kind in turn
    smallest: float = 0.45
    largest: float = 1.15
    turn: float = 20.0  # degrees, at most

    def __post_init__(self) -> None:
        if not all("{}" in template for template in self.templates) or not self.templates:
            raise ConfigError('compose.templates: each needs a {}, as in "a photo of a {}"')
        if not 0 < self.smallest <= self.largest:
            raise ConfigError("compose.smallest must be above 0 and at most compose.largest")
        if not 0 <= self.empty <= len(EMPTY):
            raise ConfigError(f"compose.empty must be 0 to {len(EMPTY)}")


def read(config: "Config") -> Learnt:
    """Cut-outs (RGBA) to train on, and those that are kept aside, whole families of them.

    Raises:
        ConfigError: the data are no cut-outs.
        DataError: nothing is there.
    """
    found = captioned(open_data(config.data))
    if not found.pictures.cut_outs:
        raise ConfigError(f"[compose] needs cut-outs with words; {config.data} has photographs")
    size = config.model.size
    pixels, kept = found.pictures.hold(size, channels=4)
    rows = [found.rows[i] for i in kept]
    learnt, aside = split((row["text"] for row in rows), config.held_out)
    shown = [i for i in aside or learnt if not rows[i].get("skin_tone")]

    def measured(size: int, end: bool) -> Measured:
        white, numbers = found.pictures.readable([kept[i] for i in shown], size)
        names = tuple((str(found.rows[i]["text"]),) for i in numbers)

        def source(i: int) -> ImageLike:
            large = found.pictures.read([numbers[i]], SHOWN)[0]
            return Image.fromarray(large.permute(1, 2, 0).numpy())

        return Measured(
            Images(white.contiguous(), captions=names),
            source,
            "kept aside" if aside else "trained on",
        )

    remarks = (*found.remarks, *found.pictures.remarks())
    rows = tuple(rows[i] for i in learnt)
    return Learnt(tuple((r["text"], *r.get("tags", ())) for r in rows), measured, remarks,
                  pixels[learnt], rows=rows)  # fmt: skip


def frames(composing: Composing) -> list[str]:
    """The words around the names, for a vocabulary."""
    filled = [template.format(composing.noun or "thing") for template in composing.templates]
    return [*filled, *EMPTY, *(f"a {name}" for name in TINTS)] * 50


class Composer:
    """Makes the batches."""

    def __init__(self, config: "Config", learnt: Learnt, tokenizer: Tokenizer) -> None:
        assert config.compose is not None
        assert learnt.pixels is not None
        self.how, self.tokenizer = config.compose, tokenizer
        self.size, self.batch = config.model.size, config.fit.batch
        self.length = config.model.text.positions
        self.pixels, self.rows = learnt.pixels, learnt.rows
        rare = torch.tensor([bool(row.get("skin_tone")) for row in self.rows])
        self.common, self.rare = (~rare).nonzero()[:, 0], rare.nonzero()[:, 0]
        if len(self.common) < self.batch:
            raise ConfigError(f"{len(self.common)} cut-outs; lower fit.batch to that")
        self.rarity = _rarity(self.rows)
        self.photographs = self._photographs()

    @property
    def nbytes(self) -> int:
        """Of the photographs."""
        return 0 if self.photographs is None else self.photographs.nbytes

    def __call__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """This pass's pictures (B, 3, size, size) in [0, 1] and token ids (B, S)."""
        g, how = draw.generator, self.how
        chosen = self.common[torch.randperm(len(self.common), generator=g)[: self.batch]]
        if len(self.rare):
            other = self.rare[torch.randint(len(self.rare), (self.batch,), generator=g)]
            chosen = torch.where(torch.rand(self.batch, generator=g) < how.rare, other, chosen)
        grounds, kinds = self.grounds(g)
        empty = _first_of_each(kinds, how.empty)
        hues = [TINTS[i] for i in torch.randint(len(TINTS), (self.batch,), generator=g).tolist()]
        tinted = torch.rand(self.batch, generator=g) < how.tinted
        rows = [self.rows[i] for i in chosen.tolist()]
        keep = [row.get("group") in how.untinted for row in rows]
        keep = [k or bool(COLOURED.search(row["text"])) for k, row in zip(keep, rows, strict=True)]
        tinted &= ~torch.tensor(keep)  # a red heart cannot be a blue red heart
        things = self.pixels[chosen]
        if tinted.any():
            wanted = [hues[i] for i in tinted.nonzero()[:, 0].tolist()]
            things[tinted] = tint(things[tinted], colour(wanted))
        images = self.composed(grounds, things, rows, empty, g)
        texts = [
            EMPTY[kinds[i]] if empty[i] else self.said(n, hues[i] if tinted[i] else "", g)
            for i, n in enumerate(chosen.tolist())
        ]
        ids = token_ids(self.tokenizer, texts, self.length)
        mine = slice(draw.part, None, draw.parts)
        return images[mine], ids[mine]

    def said(self, number: int, hue: str, g: torch.Generator) -> str:
        """One way of naming a cut-out."""
        row, how = self.rows[number], self.how
        name, tags = str(row["text"]), list(row.get("tags", ()))
        form, which, count = torch.rand(3, generator=g).tolist()
        if hue:
            name = f"{hue} {name}"
        elif tags and form < how.tagged:  # mostly those that few others have
            weights = torch.tensor([self.rarity[tag] for tag in tags])
            some = torch.multinomial(weights, min(len(tags), 1 + int(count * 3)), generator=g)
            name = ", ".join(tags[i] for i in some.tolist())
        elif tags and form < how.tagged + 0.1:
            name = f"{name}, {tags[int(count * len(tags))]}"
        elif how.noun and form > 0.9:
            name = f"{name} {how.noun}"
        template = how.templates[int(which * len(how.templates))]
        if article(name) == "an":
            template = template.replace("a {}", "an {}")
        return template.format(name)

    def composed(
        self,
        grounds: Tensor,
        things: Tensor,
        rows: Sequence[Mapping[str, Any]],
        empty: Tensor,
        g: torch.Generator,
    ) -> Tensor:
        """Things (B, 4, S, S) uint8 over grounds (B, 3, S, S) in [0, 1]."""
        how, count = self.how, len(things)
        low, high = how.smallest, how.largest
        scale = low + (high - low) * torch.rand(count, generator=g)
        room = (1 - scale).abs() + 0.3 * scale  # up to 15 % of a thing may lie outside
        centre = (torch.rand(count, 2, generator=g) * 2 - 1) * room[:, None]  # of [-1, 1]
        turned = (torch.rand(count, generator=g) * 2 - 1) * how.turn
        sided = torch.tensor([bool(SIDED.search(str(row["text"]))) for row in rows])
        mirrored = (torch.rand(count, generator=g) < 0.5) & ~sided
        thing = laid(things, scale, centre, turned, mirrored)
        # one or two others, whose middle lies near the edge of the thing or beyond
        images = grounds
        before = torch.rand(count, generator=g) < 0.5
        crowded = torch.rand(count, generator=g) < how.company
        others = []
        for share in (1.0, 0.5):
            with_it = crowded & (torch.rand(count, generator=g) < share)
            which = torch.randint(len(self.pixels), (count,), generator=g)
            size = scale * (0.5 + torch.rand(count, generator=g))
            angle = torch.rand(count, generator=g) * 2 * torch.pi
            far = (scale + size) * (0.75 + 0.4 * torch.rand(count, generator=g))
            place = centre + far[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
            turn = (torch.rand(count, generator=g) * 2 - 1) * how.turn
            other = torch.zeros_like(thing)
            if with_it.any():
                other[with_it] = laid(
                    self.pixels[which[with_it]], size[with_it], place[with_it], turn[with_it],
                    mirrored[with_it],
                )  # fmt: skip
            others.append(other)
        behind, front = before & ~empty, ~before & ~empty
        for other in others:
            images = _over(images, other * behind[:, None, None, None])
        images = _over(images, thing * ~empty[:, None, None, None])
        for other in others:
            images = _over(images, other * front[:, None, None, None])
        blurred = torch.rand(count, generator=g) < how.blurred
        if blurred.any():
            small = F.avg_pool2d(images[blurred], 2)
            images[blurred] = F.interpolate(
                small, images.shape[2:], mode="bilinear", align_corners=False
            )
        gain = 1 + 0.3 * (torch.rand(count, 1, 1, 1, generator=g) - 0.5)
        shift = 0.2 * (torch.rand(count, 1, 1, 1, generator=g) - 0.5)
        return ((images - 0.5) * gain + 0.5 + shift).clamp(0, 1)

    def grounds(self, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [0, 1], and of which kind (B,): colours, patterns, photographs."""
        count, size = self.batch, self.size
        kinds = torch.randint(3, (count,), generator=g)
        if self.photographs is None:
            kinds = kinds.clamp_max(1)
        corners = torch.rand(count, 3, 2, 2, generator=g)
        plain = torch.rand(count, 1, 1, 1, generator=g) < 0.6
        corners = torch.where(plain, corners.mean((2, 3), keepdim=True), corners)
        white = torch.rand(count, 1, 1, 1, generator=g) < 0.3
        corners = torch.where(white & plain, corners.mean(1, keepdim=True).round(), corners)
        images = F.interpolate(corners, (size, size), mode="bilinear", align_corners=True)
        patterned = kinds == 1
        if patterned.any():
            images[patterned] = patterns(images[patterned], g)
        if self.photographs is not None:
            side = self.photographs.shape[-1]
            which = torch.randint(len(self.photographs), (count,), generator=g)
            corner = torch.randint(side - size + 1, (count, 2), generator=g)
            for i in (kinds == 2).nonzero()[:, 0].tolist():
                top, left = corner[i].tolist()
                piece = self.photographs[which[i], :, top : top + size, left : left + size]
                images[i] = piece.float() / 255
        return images, kinds

    def _photographs(self) -> Tensor | None:
        if self.how.photographs is None:
            return None
        found = open_data(self.how.photographs)
        return found.spread(self.how.held).hold(self.size * 3 // 2)[0]


def laid(things: Tensor, scale: Tensor, centre: Tensor, turned: Tensor, mirrored: Tensor) -> Tensor:
    """Cut-outs (N, 4, S, S) uint8, moved: (N, 4, S, S) in [0, 1], colours times alpha.

    Args:
        scale: (N,) of the picture's side.
        centre: (N, 2) x, y of a thing's middle, from -1 to 1.
        turned: (N,) degrees.
        mirrored: (N,) bool.
    """
    values = things.float() / 255
    values = torch.cat((values[:, :3] * values[:, 3:], values[:, 3:]), 1)
    angle = torch.deg2rad(turned)
    turn = torch.stack((angle.cos(), angle.sin(), -angle.sin(), angle.cos()), 1).view(-1, 2, 2)
    turn = turn / scale[:, None, None]
    turn[:, 0] *= torch.where(mirrored, -1.0, 1.0)[:, None]
    theta = torch.cat((turn, -turn @ centre[:, :, None]), 2)
    where = F.affine_grid(theta, list(values.shape), align_corners=False)
    found = F.grid_sample(values, where, align_corners=False)
    small = scale < 0.7  # less than that aliases: sample half the resolution instead
    if small.any():
        halved = F.avg_pool2d(values[small], 2)
        found[small] = F.grid_sample(halved, where[small], align_corners=False)
    return found


def patterns(images: Tensor, g: torch.Generator) -> Tensor:
    """Noise of a random grain, or stripes and checks, over images (N, 3, S, S) in [0, 1]."""
    count, size = len(images), images.shape[-1]
    made = torch.zeros(count, 3, size, size)
    grey = torch.rand(count, 1, 1, 1, generator=g) < 0.5
    for grain in (2, 4, 8, 16, 32):
        noise = torch.rand(count, 3, grain, grain, generator=g) - 0.5
        noise = torch.where(grey, noise[:, :1], noise)
        weight = torch.rand(count, 1, 1, 1, generator=g)
        made += weight * F.interpolate(noise, (size, size), mode="bilinear", align_corners=False)
    line = torch.arange(size) / size * 2 * torch.pi
    waves = torch.randint(-8, 9, (2, count, 2, 1, 1), generator=g)
    wave = waves[..., 0, :, :] * line[None, None, None] + waves[..., 1, :, :] * line[:, None]
    wave = wave.sin().sign().prod(0)[:, None] * 0.5  # (N, 1, S, S)
    regular = torch.rand(count, 1, 1, 1, generator=g) < 0.4
    made = torch.where(regular, wave * torch.rand(count, 3, 1, 1, generator=g), made)
    strength = 0.2 + 0.8 * torch.rand(count, 1, 1, 1, generator=g)
    return (images + strength * made).clamp(0, 1)


def _over(images: Tensor, thing: Tensor) -> Tensor:
    return images * (1 - thing[:, 3:]) + thing[:, :3]


def _first_of_each(kinds: Tensor, count: int) -> Tensor:
    """(B,) bool: the first of each of ``count`` kinds."""
    chosen = torch.zeros(len(kinds), dtype=torch.bool)
    for kind in range(count):
        chosen[(kinds == kind).nonzero()[:1, 0]] = True
    return chosen


def _rarity(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """One over how many rows have a tag."""
    counts: dict[str, int] = {}
    for row in rows:
        for tag in row.get("tags", ()):
            counts[tag] = counts.get(tag, 0) + 1
    return {tag: 1 / count for tag, count in counts.items()}
