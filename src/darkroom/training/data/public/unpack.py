"""From the files of a public set to what recipes open. No name of an archive is trusted.

Each member is matched as a whole with a pattern of ours, which gives the path that is written;
what does not match is passed over. Bytes and files are counted.
"""

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from darkroom import foreign
from darkroom.errors import DataError
from darkroom.training.data.public import PublicSet

LARGEST = 64 << 20  # bytes of one member
PIXELS = 3 * 32 * 32
TONES = range(0x1F3FB, 0x1F400)
CAMVID = r"[^/]+/CamVid/(?P<folder>(train|val|test)(annot)?)/(?P<file>[\w-]+\.png)"
EMOJI = r"[^/]+/png/128/(?P<file>emoji_u[0-9a-f_]+\.png)"
LINE = re.compile(r"([0-9A-F ]+); fully-qualified\s+# \S+ E[\d.]+ (.+)")


def unpack(of: PublicSet, files: list[Path], folder: Path) -> Iterator[int]:
    """Write the set into ``folder``, as ``of.made`` names it; yields how many files there are.

    Raises:
        DataError: an archive is damaged, not what was expected, or holds too much.
    """
    counted = Counted(of, folder)
    try:
        yield from FORMS[of.form](of, files, counted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        told = " ".join(str(error).split())[:120]
        raise DataError(f"{of.name}: the archive is damaged ({told}); fetch it again") from None
    if not counted.files:
        raise DataError(f"{of.name}: nothing of the set is in {files[0].name}; it has changed")


class Counted:
    """Writes files into a folder, and keeps count of them."""

    def __init__(self, of: PublicSet, folder: Path) -> None:
        self.of, self.folder = of, folder
        self.bytes = self.files = 0

    def write(self, name: str, data: bytes) -> None:
        """Write a new file.

        Raises:
            DataError: there are too many, too large ones, or two of a name.
        """
        self.bytes, self.files = self.bytes + len(data), self.files + 1
        most, count = self.of.most
        if self.bytes > most or self.files > count:
            raise DataError(f"{self.of.name}: more than {most:,} bytes or {count:,} files in it")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            raise DataError(f"{self.of.name}: {name} is in it twice") from None


def _as_they_are(of: PublicSet, files: list[Path], out: Counted) -> Iterator[int]:
    for path in files:
        out.write(f"{of.name}/{path.name}", foreign.read_bytes(path, DataError))
        yield out.files


def _classes(of: PublicSet, files: list[Path], out: Counted) -> Iterator[int]:
    for match, data in _tar(of, files[0], of.options["members"]):
        folder = match["folder"].replace("_", " ")
        out.write(f"{of.name}/{folder}/{match['file']}", data)
        yield out.files


def _camvid(of: PublicSet, files: list[Path], out: Counted) -> Iterator[int]:
    for match, data in _zip(of, files[0], CAMVID):
        out.write(f"{of.name}/{match['folder']}/{match['file']}", data)
        yield out.files


def _cifar(of: PublicSet, files: list[Path], out: Counted) -> Iterator[int]:
    """Records of labels and planes of red, green and blue -> tars of class/00000.png."""
    from PIL import Image

    labels = int(of.options["labels"])
    names: list[str] = []
    parts: dict[str, bytes] = {}
    pattern = r"[\w-]+/(?P<file>[\w.-]+\.(bin|txt))"
    for match, data in _tar(of, files[0], pattern):
        if match["file"] == of.options["names"]:
            names = [line.strip() for line in data.decode("ascii").splitlines() if line.strip()]
        elif match["file"].endswith(".bin"):
            parts[match["file"]] = data
    if not names or not parts:
        raise DataError(f"{of.name}: no records and names of classes in {files[0].name}")
    tests = {name for name in parts if name.startswith("test")}
    for target in of.made:
        chosen = tests if "test" in target else parts.keys() - tests
        number = 0
        with tarfile.open(out.folder / target, "x") as tar:
            for name in sorted(chosen):
                data = parts[name]
                for start in range(0, len(data), labels + PIXELS):
                    record = data[start : start + labels + PIXELS]
                    if len(record) < labels + PIXELS or record[labels - 1] >= len(names):
                        raise DataError(f"{of.name}: {name}: damaged at byte {start:,}")
                    planes = [
                        Image.frombytes("L", (32, 32), record[at : at + 1024])
                        for at in range(labels, labels + PIXELS, 1024)
                    ]
                    png = io.BytesIO()
                    Image.merge("RGB", planes).save(png, "PNG", compress_level=1)
                    member = tarfile.TarInfo(f"{names[record[labels - 1]]}/{number:05}.png")
                    member.size = png.tell()
                    png.seek(0)
                    tar.addfile(member, png)
                    number += 1
                    if not number % 500:
                        yield out.files + number
        out.files += number


def _emoji(of: PublicSet, files: list[Path], out: Counted) -> Iterator[int]:
    """Noto's pictures with Unicode's names and groups and CLDR's tags, as an imagefolder."""
    archive, listing, annotations = files
    rows = _named(foreign.read_text(listing, DataError))
    told = foreign.read_json(annotations, DataError)
    try:
        tags = told["annotations"]["annotations"]
    except (KeyError, TypeError):
        raise DataError(f"{annotations}: no annotations in it; CLDR's form has changed") from None
    lines = []
    for match, data in _tar(of, archive, EMOJI):
        row = rows.get(match["file"])
        if row is None:
            continue  # letters of flags, and what Unicode does not recommend
        out.write(f"{of.name}/images/{match['file']}", data)
        plain = row["emoji"].replace("\ufe0f", "")
        said = tags.get(plain) or tags.get("".join(c for c in plain if ord(c) not in TONES)) or {}
        words = [str(word) for word in said.get("default", ()) if str(word) != row["text"]]
        lines.append({"file_name": f"images/{match['file']}", **row, "tags": words})
        yield out.files
    lines.sort(key=lambda line: line["order"])
    text = "".join(
        json.dumps({k: v for k, v in line.items() if k != "order"}, ensure_ascii=False) + "\n"
        for line in lines
    )
    out.write(f"{of.name}/metadata.jsonl", text.encode())


def _named(text: str) -> dict[str, dict[str, Any]]:
    """emoji-test.txt -> what each of Noto's files shows."""
    rows: dict[str, dict[str, Any]] = {}
    group = subgroup = ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").strip().lower()
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ").strip()
        elif match := LINE.fullmatch(line.strip()):
            codes = [int(code, 16) for code in match[1].split()]
            file = "_".join(f"{code:04x}" for code in codes if code != 0xFE0F)
            rows[f"emoji_u{file}.png"] = {
                "text": match[2],
                "group": group,
                "subgroup": subgroup,
                "emoji": "".join(map(chr, codes)),
                "skin_tone": any(code in TONES for code in codes),
                "order": len(rows),
            }
    return rows


def _tar(of: PublicSet, path: Path, pattern: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """Regular files whose whole name fits, one after the other; the archive is read as a stream."""
    opened = foreign.open_file(path, DataError)
    try:
        yield from _members(of, opened, path.name, pattern)
    finally:
        opened.close()


def _members(
    of: PublicSet, opened: BinaryIO, name: str, pattern: str
) -> Iterator[tuple[re.Match[str], bytes]]:
    most = of.most[0] * 4
    tar = tarfile.open(fileobj=opened, mode="r|gz")  # noqa: SIM115 - closed below
    try:
        for member in tar:
            if member.offset_data + member.size > most:
                raise DataError(f"{of.name}: {name} unpacks to more than {most:,} bytes")
            match = re.fullmatch(pattern, member.name.removeprefix("./"))
            if not match or not member.isreg():
                continue
            file = tar.extractfile(member)
            if file is not None:
                yield match, _whole(of, file, member.size)
    finally:
        tar.close()


def _zip(of: PublicSet, path: Path, pattern: str) -> Iterator[tuple[re.Match[str], bytes]]:
    opened = foreign.open_file(path, DataError)
    try:
        archive = zipfile.ZipFile(opened)
        for member in archive.infolist():
            match = re.fullmatch(pattern, member.filename)
            if match:
                file = archive.open(member)
                try:
                    yield match, _whole(of, file, member.file_size)
                finally:
                    file.close()
    finally:
        opened.close()


def _whole(of: PublicSet, file: Any, size: int) -> bytes:
    if size > LARGEST:
        raise DataError(f"{of.name}: a file of {size:,} bytes in it")
    data = file.read(LARGEST + 1)
    if len(data) != size:
        raise DataError(f"{of.name}: a file of {len(data):,} bytes in it, stated as {size:,}")
    return data


Form = Callable[[PublicSet, list[Path], Counted], Iterator[int]]
FORMS: dict[str, Form] = {
    "as they are": _as_they_are,
    "classes": _classes,
    "CamVid": _camvid,
    "CIFAR": _cifar,
    "emoji": _emoji,
}
