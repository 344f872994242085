"""Readers of data sets: folders, tars, and the files that well-known sets come in."""

from darkroom.training.data.camvid import Scenes, camvid
from darkroom.training.data.captioned import Captioned, captioned
from darkroom.training.data.flickr8k import flickr8k
from darkroom.training.data.labelled import Images, class_folders, class_tar, idx
from darkroom.training.data.opening import open_data
from darkroom.training.data.pictures import Part, Pictures

__all__ = [
    "Captioned",
    "Images",
    "Part",
    "Pictures",
    "Scenes",
    "camvid",
    "captioned",
    "class_folders",
    "class_tar",
    "flickr8k",
    "idx",
    "open_data",
]
