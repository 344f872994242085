"""Look at every item of a data set: what cannot be used, and what one would want to know."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from darkroom.errors import DataError
from darkroom.images import to_rgb, undecoded
from darkroom.training.data.labelled import FORMATS
from darkroom.training.data.pictures import Pictures

ORDINARY = ("RGB", "RGBA", "L", "P")
ORIENTATION = 0x0112  # EXIF
NEAR = 3  # of 64 bits of the perceptual hash
ALIKE = 6.0  # mean difference of 16 x 16 grey values, of 255
GROUP = 64  # pictures of one hash band that a new one is held against
CHUNK = 16  # items for one thread at a time


class Seen(NamedTuple):
    """What is kept of one picture: a kilobyte, whatever its size."""

    item: int
    error: str = ""
    size: tuple[int, int] = (0, 0)  # width, height
    mode: str = ""
    turned: bool = False  # EXIF says that it lies on its side or its head
    animated: bool = False
    captioned: bool = True
    lost_words: bool = False  # a caption of it cannot be decoded
    exact: bytes = b""  # of the decoded pixels
    perceptual: int = 0
    thumbnail: np.ndarray | None = None  # (16, 16) float32 grey


@dataclass
class Checked:
    """Names of items, by what is wrong with them."""

    items: int = 0
    usable: int = 0  # readable and not tiny
    unreadable: dict[str, str] = field(default_factory=dict)  # name: why
    tiny: dict[str, str] = field(default_factory=dict)  # name: its size
    duplicates: dict[str, str] = field(default_factory=dict)  # name: the earlier one
    near_duplicates: dict[str, str] = field(default_factory=dict)
    turned: dict[str, str] = field(default_factory=dict)
    odd_mode: dict[str, str] = field(default_factory=dict)  # name: its mode
    without_caption: dict[str, str] = field(default_factory=dict)
    undecoded: dict[str, str] = field(default_factory=dict)  # whose captions are no Unicode
    smallest: int = 0  # shorter side, in pixels
    largest: int = 0  # longer side

    def problems(self) -> dict[str, dict[str, str]]:
        """Title: {name of an item: what is to be said of it}."""
        return {
            "unreadable": self.unreadable,
            "tiny": self.tiny,
            "duplicates": self.duplicates,
            "near duplicates": self.near_duplicates,
            "turned by EXIF": self.turned,
            "odd mode": self.odd_mode,
            "without caption": self.without_caption,
            "caption not UTF-8": self.undecoded,
        }


def check(
    pictures: Pictures,
    size: int = 16,
    threads: int = 4,
    advance: Callable[[int], object] = lambda done: None,
) -> Checked:
    """Read every picture once.

    Exact duplicates have equal pixels, whatever the files' bytes. Near duplicates (scaled,
    compressed again, retouched) agree in 61 of 64 bits of a perceptual hash and in a thumbnail.

    Args:
        size: a picture is tiny if its shorter side is below this.
        advance: called with the number of items that were just looked at.
    """
    found = Checked()
    exact: dict[bytes, str] = {}
    near = Near()
    for seen in _looked_at(pictures, threads):
        name, found.items = pictures.name(seen.item), found.items + 1
        advance(1)
        if seen.lost_words:
            found.undecoded[name] = ""
        elif not seen.captioned:
            found.without_caption[name] = ""
        if seen.error:
            found.unreadable[name] = seen.error
            continue
        width, height = seen.size
        shorter = min(seen.size)
        found.smallest = min(found.smallest or shorter, shorter)
        found.largest = max(found.largest, *seen.size)
        if shorter < size:
            found.tiny[name] = f"{width}x{height}"
        else:
            found.usable += 1
        if seen.turned:
            found.turned[name] = ""
        if seen.mode not in ORDINARY or seen.animated:
            found.odd_mode[name] = "an animation" if seen.animated else seen.mode
        if earlier := exact.get(seen.exact):
            found.duplicates[name] = earlier
            continue
        exact[seen.exact] = name
        if earlier := near.seen_before(seen, name):
            found.near_duplicates[name] = earlier
    return found


def _looked_at(pictures: Pictures, threads: int) -> Iterator[Seen]:
    """Every item in order; a few hundred at most are under way."""
    items = pictures.unique()
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    pool = ThreadPoolExecutor(threads)
    begun: deque[Future[list[Seen]]] = deque()
    try:
        for chunk in chunks:
            begun.append(pool.submit(lambda part: [look(pictures, i) for i in part], chunk))
            if len(begun) > 4 * threads:
                yield from begun.popleft().result()
        while begun:
            yield from begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def look(pictures: Pictures, item: int) -> Seen:
    """Decode one picture and keep what identifies it."""
    captioned, lost = True, False
    try:
        lost = pictures.has_lost_words(item)
        said = pictures.captions(item) if pictures.captioned else ("",)
        captioned = not pictures.captioned or any(text.strip() for text in said)
        (data,) = pictures.raw([item])
        with undecoded(data, FORMATS) as picture:
            size, mode = picture.size, picture.mode
            turned = picture.getexif().get(ORIENTATION, 1) not in (0, 1)
            animated = getattr(picture, "is_animated", False)
            rgb = to_rgb(picture)
    except DataError as error:
        return Seen(item, str(error).rpartition(": ")[2], captioned=captioned, lost_words=lost)
    except Exception as error:  # Pillow's readers raise almost anything on damage
        why = " ".join(str(error).split()) if str(error) else type(error).__name__
        why = why.removeprefix("the picture: ")
        why = "no image" if why.startswith("not a ") else why
        return Seen(item, why[:120], captioned=captioned, lost_words=lost)
    exact = hashlib.blake2b(rgb.tobytes(), digest_size=16, key=str(rgb.size).encode()).digest()
    grey = rgb.convert("L")
    small = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), np.float32)
    thumbnail = small.reshape(16, 2, 16, 2).mean((1, 3))
    return Seen(
        item, "", size, mode, turned, animated, captioned, lost, exact, perceptual_hash(small),
        thumbnail,
    )  # fmt: skip


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits: which of the 8 x 8 lowest frequencies of a (32, 32) picture exceed their median.

    The discrete cosine transform (Ahmed et al., 1974), without the constant term.
    """
    n, k = np.arange(32), np.arange(9)[:, None]
    waves = np.cos(np.pi * (2 * n + 1) * k / 64)
    low = (waves @ grey @ waves.T)[:9, :9].flatten()[1:65]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


class Near:
    """Finds hashes within ``NEAR`` bits: of four bands of 16 bits one must then agree."""

    def __init__(self) -> None:
        self.bands: list[dict[int, deque[tuple[int, np.ndarray, str]]]] = [{}, {}, {}, {}]

    def seen_before(self, seen: Seen, name: str) -> str:
        """The name of an earlier picture that looks alike, or nothing; keeps new ones."""
        assert seen.thumbnail is not None
        if seen.thumbnail.std() < 4:  # plain surfaces have no hash to speak of
            return ""
        for number, band in enumerate(self.bands):
            for earlier, thumbnail, other in band.get(_band(seen.perceptual, number), ()):
                if (earlier ^ seen.perceptual).bit_count() <= NEAR and (
                    np.abs(thumbnail - seen.thumbnail).mean() < ALIKE
                ):
                    return other
        for number, band in enumerate(self.bands):
            group = band.setdefault(_band(seen.perceptual, number), deque(maxlen=GROUP))
            group.append((seen.perceptual, seen.thumbnail, name))
        return ""


def _band(value: int, number: int) -> int:
    return value >> 16 * number & 0xFFFF
