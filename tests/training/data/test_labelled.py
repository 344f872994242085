import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import DataError
from darkroom.training.data import class_folders, class_tar, idx


def write_idx(path, array, pack=False):
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if pack else data)


@pytest.mark.parametrize("pack", [False, True])
def test_idx_files(tmp_path, pack):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28))
    labels = np.array([0, 1, 2, 3, 9, 5, 6])
    suffix = ".gz" if pack else ""
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", pixels, pack)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", labels, pack)
    images = idx(tmp_path, train=False)
    assert torch.equal(images.pixels[:, 0], torch.from_numpy(pixels).to(torch.uint8))
    assert images.labels.tolist() == labels.tolist()
    assert images.classes[9] == "9"
    with pytest.raises(DataError, match="train-images"):
        idx(tmp_path)


def test_a_damaged_idx_file_is_named(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 28, 28)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x05\x01")
    with pytest.raises(DataError, match="train-labels"):
        idx(tmp_path)


def test_class_folders_and_tars_agree(tmp_path):
    tar_path = tmp_path / "set.tar"
    with tarfile.open(tar_path, "w") as tar:
        for name in ("cat", "ant"):
            (tmp_path / "set" / name).mkdir(parents=True)
            for i in range(3):
                values = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / "set" / name / f"{i}.png")
                data = (tmp_path / "set" / name / f"{i}.png").read_bytes()
                info = tarfile.TarInfo(f"{name}/{i}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    folders, packed = class_folders(tmp_path / "set", 8), class_tar(tar_path)
    assert folders.classes == packed.classes == ("ant", "cat")
    assert torch.equal(folders.pixels, packed.pixels)
    assert folders.labels.tolist() == packed.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert class_tar(tar_path, 4).pixels.shape == (6, 3, 4, 4)


def test_no_images_and_broken_ones(tmp_path):
    with pytest.raises(DataError, match="class/file"):
        class_folders(tmp_path / "nowhere", 8)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png"):
        class_folders(tmp_path, 8)
