"""Label Studio's tasks, with masks as predictions, and the labelling interface they need.

As polygons (the default) they also come out of Label Studio again as COCO and YOLO; brush strokes
keep every pixel, but most of its exports leave them out.
"""

import html
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from darkroom.errors import DataError
from darkroom.masks import Mask
from darkroom.masks.outlines import tied
from darkroom.vision.export import brush as strokes
from darkroom.vision.export.coco import rings
from darkroom.vision.export.records import OBJECT, Pictured

__all__ = ["interface", "read_tasks", "tasks"]

LOCAL = "/data/local-files/?d="  # how Label Studio finds files of its local storage


def tasks(pictures: Iterable[Pictured], brush: bool = False) -> list[dict[str, Any]]:
    """What to import: one task for each picture, its masks as one prediction.

    Args:
        brush: strokes instead of polygons.
    """
    return [_task(picture, brush) for picture in pictures]


def interface(labels: Iterable[str], brush: bool = False) -> str:
    """The labelling interface (XML) that the tasks fit: paste it into the project's settings."""
    kind = "BrushLabels" if brush else "PolygonLabels"
    names = "".join(f'    <Label value="{html.escape(label)}"/>\n' for label in labels)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <{kind} name="label" toName="image">\n{names}  </{kind}>\n</View>\n'
    )


def read_tasks(content: Iterable[Mapping[str, Any]]) -> list[Pictured]:
    """The pictures of tasks as ``tasks`` writes them, or as Label Studio exports them.

    Of a task with annotations those count, else its predictions. A picture in which nothing was
    found has no size there and is left out.

    Raises:
        DataError: they are no tasks, or a mask is damaged.
    """
    try:
        return [picture for task in content if (picture := _picture(task))]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise DataError(f"no tasks of Label Studio ({error!r})") from None


def _task(picture: Pictured, brush: bool) -> dict[str, Any]:
    height, width = picture.size
    results = []
    for number, record in enumerate(picture.records, 1):
        kind = "brushlabels" if brush else "polygonlabels"
        if brush:
            value: dict[str, Any] = {"format": "rle", "rle": strokes.pack(record.mask)}
        else:
            points = (tied(rings(record)) / (width, height) * 100).round(6)
            value = {"points": points.tolist(), "closed": True}
        result = {
            "id": f"mask{number}",
            "type": kind,
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value | {kind: [record.name]},
        }
        results.append(result | ({} if record.score is None else {"score": record.score}))
    address = picture.file if "://" in picture.file else LOCAL + picture.file
    prediction = {"model_version": "darkroom", "result": results}
    return {"data": {"image": address}, "predictions": [prediction]}


def _picture(task: Mapping[str, Any]) -> Pictured | None:
    given = task.get("annotations") or task.get("predictions") or []
    results = [result for entry in given[:1] for result in entry["result"]]
    file = str(task["data"]["image"]).removeprefix(LOCAL)
    picture = None
    for result in results:
        if result["type"] not in ("brushlabels", "polygonlabels"):
            continue
        size = (int(result["original_height"]), int(result["original_width"]))
        name = str(PurePath(file).with_suffix(""))
        picture = picture or Pictured(name, file, size)
        value = result["value"]
        if "rle" in value:
            mask = strokes.unpack(value["rle"], size)
        else:
            points = np.array(value["points"], float) * (size[1] / 100, size[0] / 100)
            mask = Mask.from_polygons([(points,)], size)
        label = value[result["type"]][0]
        label = "" if label == OBJECT else label
        picture.add(Mask(mask.values, result.get("score"), label=label))
    return picture
