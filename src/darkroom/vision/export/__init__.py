"""Masks as the files that others read: COCO, YOLO, Label Studio, PNG, CSV, run lengths.

``writer("coco", folder)`` makes what takes one ``Pictured`` after the other and, when it is closed,
has written whole files. No torch is needed.
"""

from darkroom.vision.export.records import Pictured, Record
from darkroom.vision.export.writing import Writer, writer

__all__ = ["Pictured", "Record", "Writer", "writer"]
