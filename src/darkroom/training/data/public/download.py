"""One file over HTTP: resumed by range, bounded, and checked before it has its name."""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from darkroom import foreign
from darkroom.atomic import sync_folder
from darkroom.errors import DarkroomError, DataError
from darkroom.training.data.public import Source

CHUNK = 1 << 18
TRIES = 4  # in a row that bring nothing
TIMEOUT = 30.0  # seconds of silence
AGENT = "darkroom-studio"  # some servers refuse Python's own


def download(source: Source, path: Path, wait: float = 1.0) -> Iterator[int]:
    """Fetch a file to ``path``; yields how many bytes are here. Closing the generator stops it.

    What is fetched stays in ``path`` with ``.part`` at its end; the next call goes on from there.

    Args:
        wait: seconds before the second try; each further one waits twice as long.

    Raises:
        DataError: the file has another size or hash than the source states.
        DarkroomError: the server cannot be reached, or has no such file.
    """
    if path.exists() and (not source.size or path.stat().st_size == source.size):
        yield path.stat().st_size
        return
    part = path.with_name(path.name + ".part")
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            yield from _append(source, part)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # there is nothing after what is here
                break
            raise DarkroomError(
                f"{source.url}: the server answers {error.code} {error.reason}; try again later, "
                "or bring the file yourself and give its folder with --mirror"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            got = part.stat().st_size if part.exists() else 0
            failed = 0 if got > before else failed + 1
            if failed == TRIES or _is_local(error):
                why = " ".join(str(getattr(error, "reason", error)).split())[:120]
                raise DarkroomError(
                    f"{source.url}: cannot be reached ({why or type(error).__name__}); connect "
                    "and run it again, what was fetched is kept"
                ) from None
            time.sleep(wait * 2 ** max(failed - 1, 0))
    _check(source, part)
    os.replace(part, path)
    sync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    with foreign.open_file(path, DataError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _append(source: Source, part: Path) -> Iterator[int]:
    """Ask for what is missing, and write it."""
    start = part.stat().st_size if part.exists() else 0
    most = source.size or source.most
    if source.size and start == source.size:
        yield start
        return
    if start > most:
        start = 0
    headers = {"User-Agent": AGENT} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(source.url, headers=headers)
    if request.type not in ("http", "https"):
        raise DarkroomError(f"{source.url}: expected an address with http or https")
    answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    try:
        resumed = answer.status == 206
        said = answer.headers.get("Content-Range", "")
        if resumed and not said.startswith(f"bytes {start}-"):
            raise DarkroomError(f"{source.url}: the server sent another part than was asked for")
        start = start if resumed else 0
        left = answer.headers.get("Content-Length", "")
        total = start + int(left) if left.isdigit() else 0
        if total > most:
            raise DataError(f"{source.url}: {total:,} bytes, expected {_expected(source)}")
        file = part.open("ab" if resumed else "wb")
        try:
            done = start
            yield done
            while chunk := answer.read(CHUNK):
                done += len(chunk)
                if done > most:
                    raise DataError(f"{source.url}: more than {_expected(source)}; stopped")
                file.write(chunk)
                yield done
        finally:
            file.close()
        if total and done < total:
            raise http.client.IncompleteRead(b"", total - done)
    finally:
        answer.close()


def _check(source: Source, part: Path) -> None:
    size = part.stat().st_size
    wrong = ""
    if source.size and size != source.size:
        wrong = f"{size:,} bytes, expected {source.size:,}"
    elif source.sha256 and (found := sha256_of(part)) != source.sha256:
        wrong = f"SHA-256 {found[:12]}..., expected {source.sha256[:12]}..."
    if wrong:
        with contextlib.suppress(OSError):
            part.unlink()
        raise DataError(f"{source.url}: {wrong}; what was fetched is deleted, run it again")


def _expected(source: Source) -> str:
    return f"{source.size:,} bytes" if source.size else f"at most {source.most:,} bytes"


def _is_local(error: BaseException) -> bool:
    """Whether the disk fails, not the network: another try is of no use."""
    import errno

    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
