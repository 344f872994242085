"""Readers of data sets: folders, tars, and the files that well-known sets come in."""

from darkroom.training.data.captioned import CaptionedPictures, image_folder
from darkroom.training.data.labelled import Images, class_folders, class_tar, idx

__all__ = ["CaptionedPictures", "Images", "class_folders", "class_tar", "idx", "image_folder"]
