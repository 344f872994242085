"""Map a file into memory, and say what it is by its first bytes, not by its suffix."""

import mmap
import os

from darkroom import foreign
from darkroom.weights.readers.faults import AGAIN, Fault
from darkroom.weights.readers.quantized import UNQUANTISED

# First bytes of things that are often saved under a checkpoint's name, and what to do about it.
FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file", "run `git lfs pull`"),
    (b"version https://hawser", "is a Git LFS pointer, not the file", "run `git lfs pull`"),
    (b"\x89PNG\r\n\x1a\n", "is a PNG picture", "give the checkpoint instead"),
    (b"\xff\xd8\xff", "is a JPEG picture", "give the checkpoint instead"),
    (b"RIFF", "is a WebP picture or a sound", "give the checkpoint instead"),
    (b"GIF8", "is a GIF picture", "give the checkpoint instead"),
    (b"%PDF", "is a PDF document", "give the checkpoint instead"),
    (b"GGUF", "is a quantised GGUF file; expected safetensors or PyTorch", UNQUANTISED),
    (b"GGML", "is a quantised GGML file; expected safetensors or PyTorch", UNQUANTISED),
    (b"\x1f\x8b", "is gzip-compressed", "unpack it with gunzip first"),
    (b"BZh", "is bzip2-compressed", "unpack it with bunzip2 first"),
    (b"\xfd7zXZ", "is xz-compressed", "unpack it with unxz first"),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed", "unpack it with unzstd first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it first"),
    (b"Rar!", "is a RAR archive", "unpack it first"),
    (b"\x89HDF", "is a Keras/HDF5 file", "ask for the PyTorch version"),
    (b"\x93NUMPY", "is a single NumPy array", "ask for the PyTorch version"),
    (b"\x7fELF", "is a program", "give the checkpoint instead"),
    (b"MZ", "is a Windows program", "give the checkpoint instead"),
    (b"\x08\x01\x12", "looks like an ONNX file", "ask for the PyTorch version"),
    (b"\x08\x03\x12", "looks like an ONNX file", "ask for the PyTorch version"),
)


def open_mapped(path: str | os.PathLike[str]) -> mmap.mmap:
    """The whole file as writable memory that is private to us: pages are read when touched.

    Raises:
        Fault: not a regular file, or empty.
        OSError: it cannot be opened.
    """
    try:
        file = foreign.opened(path)
    except foreign.Unreadable as problem:
        raise Fault(problem.what, problem.remedy) from None
    with file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Fault("is empty (0 bytes)", AGAIN)
        if os.name != "posix":
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def sniff(data: mmap.mmap) -> str:
    """What a file is: "zip", "safetensors" or "pickle".

    Raises:
        Fault: it is something else, with a remedy where it is something well known.
    """
    head = data[:512]
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    pickled = head[:1] == b"\x80" and head[1:2] <= b"\x05"
    if head[8:9] == b"{" and (head[5:8] == bytes(3) or not pickled):
        return "safetensors"
    if pickled:
        return "pickle"
    if len(head) < 9:
        return "safetensors"  # which then says that it is cut short
    for start, what, remedy in FOREIGN:
        if head.startswith(start):
            raise Fault(what, remedy)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        raise Fault("is a web page, not a checkpoint", f"{AGAIN}; the site may want a log-in")
    if text[:1] == b"{":
        raise Fault("is a JSON file (an error answer or a config)", "give the weights' file")
    if data[257:262] == b"ustar":
        raise Fault("is a tar archive (or PyTorch older than 0.1.10)", "unpack it first")
    if not head.strip(b"\0"):
        raise Fault("holds zero bytes: the download never filled it", AGAIN)
    if head[:1] in b"(c]}ldtiIFLVSNpg" and b"\n" in head:
        return "pickle"  # protocol 0 has no signature
    raise Fault("is no checkpoint: neither safetensors nor PyTorch", "check which file it is")
