"""What was found in a picture, small enough to keep: masks as run lengths, and whence they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.errors import DataError
from darkroom.masks import Mask

__all__ = ["OBJECT", "Pictured", "Record"]

OBJECT = "object"  # the class of a mask without a label


@dataclass(frozen=True)
class Record:
    """A mask, packed.

    Args:
        rle: COCO's compressed run lengths.
        box: left, top, right, bottom, the last two just outside.
        area: in pixels.
        score: of the mask; None where unknown.
        source: what made it.
        label: its class; "" where unknown.
    """

    rle: Mapping[str, Any]
    box: tuple[int, int, int, int]
    area: int
    score: float | None = None
    source: str = ""
    label: str = ""

    @classmethod
    def of(cls, mask: Mask) -> "Record":
        """Pack a mask; a soft one is cut at one half.

        Raises:
            ValueError: no pixel is inside.
        """
        hard = mask.binary()
        if hard.box is None:
            raise ValueError("a mask without a pixel inside cannot be written")
        score = None if mask.score is None else round(float(mask.score), 6)
        return cls(hard.rle(), hard.box, int(hard.area), score, mask.source, mask.label)

    @property
    def mask(self) -> Mask:
        """Unpacked."""
        plain = Mask.from_rle(self.rle)
        return Mask(plain.values, self.score, self.source, self.label)

    @property
    def name(self) -> str:
        """Its class, "object" where it has none."""
        return self.label or OBJECT

    def fields(self) -> dict[str, Any]:
        """Ready for JSON, named as COCO names them; what is unknown is left out."""
        left, top, right, bottom = self.box
        found: dict[str, Any] = {
            "bbox": [left, top, right - left, bottom - top],
            "area": self.area,
            "score": self.score,
            "label": self.label,
            "source": self.source,
            "segmentation": dict(self.rle),
        }
        return {name: value for name, value in found.items() if value not in (None, "")}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Record":
        """The inverse of ``fields``; box and area are taken from the run lengths.

        Raises:
            DataError: there are no run lengths, or they are damaged.
        """
        if not isinstance(fields, Mapping) or "segmentation" not in fields:
            raise DataError("a mask without run lengths; expected them as 'segmentation'")
        plain = Mask.from_rle(fields["segmentation"])
        if plain.box is None:
            raise DataError("run lengths without a pixel inside")
        extra = {key: fields[key] for key in ("score", "source", "label") if key in fields}
        return cls.of(Mask(plain.values, **extra))


@dataclass(frozen=True)
class Pictured:
    """A picture and what was found in it.

    Args:
        name: a path without a suffix, unique, that files about the picture are named by:
            "street/truck".
        file: how others find the picture: a path or an address.
        size: (height, width), upright.
        records: in the order in which they were found.
    """

    name: str
    file: str
    size: tuple[int, int]
    records: list[Record] = field(default_factory=list)

    def add(self, mask: Mask) -> Record:
        """Pack a mask and keep it.

        Raises:
            ValueError: it has another size, or no pixel inside.
        """
        if mask.values.shape != self.size:
            raise ValueError(
                f"{self.file}: a mask of {mask.width}x{mask.height} in a picture of "
                f"{self.size[1]}x{self.size[0]}"
            )
        record = Record.of(mask)
        self.records.append(record)
        return record
