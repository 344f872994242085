"""Other things under a checkpoint's name."""

import gzip
import io
import os
import tarfile

from hostile.kinds import ST, kind
from hostile.making import good_safetensors, pack, zipped

HEADS = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "gif": b"GIF89a",
    "pdf": b"%PDF-1.7\n",
    "gguf": b"GGUF\3\0\0\0",
    "gzip": gzip.compress(b"weights"),
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\0\0",
    "zstd": b"\x28\xb5\x2f\xfd\x24",
    "7z": b"7z\xbc\xaf\x27\x1c\0\4",
    "rar": b"Rar!\x1a\7\1\0",
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "numpy": b"\x93NUMPY\1\0v\0{'descr': '<f4'}",
    "elf": b"\x7fELF\2\1\1\0",
    "exe": b"MZ\x90\0\3\0\0\0",
    "onnx": b"\x08\x03\x12\x07pytorch",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167534\n",
    "html": b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>",
    "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "json": b'{"error": "Unauthorized", "message": "The creator requires login"}',
    "text": b"Entry not found",
    "zeros": bytes(4096),
}


def _head(name: str) -> None:
    def make(rng):
        head = HEADS[name]
        return head if name in ("lfs", "html", "json", "text", "xml") else head + rng.randbytes(200)

    make.__name__ = f"is_{name}"
    kind(ST)(make)


for _name in HEADS:
    _head(_name)


@kind(ST)
def is_empty(rng):
    return b""


@kind()
def is_noise(rng):
    return b"\xab" + rng.randbytes(rng.randint(0, 3000))


@kind()
def is_tiny(rng):
    return rng.randbytes(rng.randint(1, 12))


@kind()
def is_tar(rng):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return file.getvalue()


@kind()
def is_folder(rng):
    return lambda path: path.mkdir()


@kind()
def is_pipe(rng):
    return lambda path: os.mkfifo(path)


@kind()
def is_device(rng):
    return lambda path: path.symlink_to(rng.choice(["/dev/zero", "/dev/random", "/dev/null"]))


@kind()
def is_link_to_itself(rng):
    return lambda path: path.symlink_to(path)


@kind()
def is_link_to_nothing(rng):
    return lambda path: path.symlink_to("/nowhere/at/all")


@kind()
def is_other_zip(rng):
    return zipped({rng.choice(["word/document.xml", "a.txt", "x/y/data.pkl"]): b"hello"})


@kind()
def is_zip_around_a_checkpoint(rng):
    return zipped({"model.safetensors": pack(*good_safetensors(rng))})
