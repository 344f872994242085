"""Bring a public model onto this machine. Together with load("hf:..."), all that uses the network.

Every file of a pull comes from one commit, into huggingface_hub's own cache, where other programs
find it as well. An interrupted pull goes on where it stopped. Each file's hash is compared with the
one that the hub states, and no code from a repository is ever fetched. What a hub (or a mirror that
HF_ENDPOINT names) answers is not trusted: names of files, the commit, sizes, and the ETag, by which
the cache calls a file, are checked before anything is written.
"""

import contextlib
import hashlib
import inspect
import queue
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from darkroom import foreign
from darkroom.errors import CheckpointError, ModelNotFoundError
from darkroom.names import did_you_mean
from darkroom.weights.locate import SKIPPED, WEIGHTS, Remote, best_set, cache_root
from darkroom.weights.registry import CHUNK, Registered, Stamp, register

DESCRIPTIONS = (".json", ".txt", ".model")  # configs and vocabularies: small, all taken
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # how weights of a part are called
COMMIT = re.compile("[0-9a-f]{40}")
HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")  # of git, and SHA-256
OPEN_CLIP = "open_clip_"  # how open_clip calls its weights


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub describes it."""

    path: str
    size: int
    sha256: str | None  # of files in large-file storage
    blob: str | None  # git's SHA-1 of the others


@dataclass(frozen=True)
class Plan:
    """What a pull will fetch."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    folder: bool  # a folder of parts; else one file

    @property
    def size(self) -> int:
        """Bytes, of which some may be here already."""
        return sum(file.size for file in self.files)

    @property
    def unstated(self) -> tuple[str, ...]:
        """Files of which the hub states no hash: what arrives cannot be checked."""
        return tuple(file.path for file in self.files if not (file.sha256 or file.blob))

    @property
    def source(self) -> str:
        """hf:owner/name@commit."""
        return f"hf:{self.repo}@{self.commit}"


@dataclass(frozen=True)
class Pulled:
    """Progress: ``done`` bytes of the plan are here and ``file`` is the current one."""

    file: str
    done: int


def plan(remote: Remote, variant: str | None = None) -> Plan:
    """Ask the hub which commit and which files; fetches no weights.

    Args:
        variant: prefer weights whose name says so, such as "fp16".

    Raises:
        DarkroomError: the repository, revision or file is not there, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    repo = remote.repository
    with foreign.understood(f"hf:{repo}: the hub's answer", CheckpointError), _one_line(repo):
        info = HfApi().model_info(repo, revision=remote.revision, files_metadata=True)
        there = {
            s.rfilename: _described(repo, s)
            for s in info.siblings or ()
            if not _hidden(s.rfilename)
        }
        if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
            raise CheckpointError(f"hf:{repo}: the hub names no commit, but {info.sha!r:.60}")
    weights = [name for name in there if name.endswith(WEIGHTS)]
    if remote.file is None:
        chosen = choose(there, variant)
        if not any(name in weights for name in chosen):
            some = f"name a file of it: hf:{repo}:FILE, one of {', '.join(weights[:8])}"
            raise ModelNotFoundError(
                f"hf:{repo}: not one model; {some if weights else 'it has no weights'}"
            )
        return Plan(repo, info.sha, tuple(there[name] for name in chosen), folder=True)
    if remote.file not in there:
        hint = did_you_mean(remote.file, weights) or f"; it has {', '.join(weights[:8])}"
        raise ModelNotFoundError(f"hf:{repo}: no file {remote.file!r}{hint}")
    return Plan(repo, info.sha, (there[remote.file],), folder=False)


def choose(names: Iterable[str], variant: str | None = None) -> list[str]:
    """The files of a repository that ``load`` needs: descriptions, and each part's weights once.

    Args:
        variant: prefer these ("fp16"), where a part has them.
    """
    names = list(names)
    pipeline = "model_index.json" in names
    chosen = [name for name in names if name.endswith(DESCRIPTIONS)]
    parts: dict[str, list[str]] = {}
    open_clip = any(name.startswith(OPEN_CLIP) and name.endswith(WEIGHTS) for name in names)
    stems = (OPEN_CLIP,) if open_clip else STEMS  # what lies beside is the same, or a part of it
    for name in names:
        folder, _, file = name.rpartition("/")
        # at the root of a pipeline lies the same model again, as a single file
        wanted = folder not in SKIPPED and bool(folder) == pipeline
        if wanted and file.endswith(WEIGHTS) and file.startswith(stems):
            parts.setdefault(folder, []).append(file)
    for folder, files in parts.items():
        chosen += [f"{folder}/{file}" if folder else file for file in best_set(files, variant)]
    return sorted(chosen)


def pull(plan: Plan) -> Iterator[Pulled]:
    """Fetch and check every file of a plan. Closing the generator stops it; what is here stays.

    Raises:
        CheckpointError: a file is not what the hub says, after a second try.
        DarkroomError: the hub cannot be reached or the disk is full.
    """
    done, checked = 0, dict[Path, tuple[int, int]]()
    for file in plan.files:
        for attempt in range(2):
            for fetched in _fetch(plan, file, again=attempt > 0):
                yield Pulled(file.path, done + min(fetched, file.size))
            place = local(plan, file.path)
            if _matches(place, file):
                checked[place] = _stamp(place)
                break
        else:
            raise CheckpointError(
                f"{plan.source}: {file.path} does not have the hash that the hub states, twice; "
                "something between here and the hub changes it"
            )
        done += file.size
        yield Pulled(file.path, done)
    for place, stamp in checked.items():
        if _stamp(place) != stamp:
            raise CheckpointError(f"{place}: has changed since it was checked; pull it again")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def record(plan: Plan, name: str) -> Registered:
    """Register a finished pull under ``name``, with the size and SHA-256 of each file."""
    stamps = {
        file.path: Stamp(file.size, file.sha256 or _sha256(local(plan, file.path)))
        for file in plan.files
    }
    root = local(plan, plan.files[0].path)
    if not plan.folder:
        return register(name, root, {root.name: next(iter(stamps.values()))}, plan.source)
    root = root.parents[len(PurePosixPath(plan.files[0].path).parts) - 1]
    return register(name, root, stamps, plan.source)


def local(plan: Plan, file: str) -> Path:
    """Where a pulled file lies in the cache.

    Raises:
        ModelNotFoundError: it is not there.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(plan.repo, file, revision=plan.commit)
    if not isinstance(found, str):
        raise ModelNotFoundError(f"{plan.source}: {file} is not in the cache; pull it again")
    path = Path(found)
    if not path.resolve().is_relative_to(cache_root().parent.resolve()):
        raise CheckpointError(
            f"{plan.source}: {file} lies outside of the cache, at {path.resolve()}"
        )
    return path


def _fetch(plan: Plan, file: RemoteFile, again: bool) -> Iterator[int]:
    """Download in a thread, so that this stays a generator; yields bytes of this file so far."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import tqdm

    counts: queue.Queue[int | BaseException | None] = queue.Queue()
    arrived = 0
    stopped = threading.Event()

    class Counter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            nonlocal arrived
            arrived = int(kwargs.get("initial") or 0)
            counts.put(arrived)
            super().__init__(*args, **(kwargs | {"disable": True}))

        def update(self, n: float | None = 1) -> bool | None:
            if stopped.is_set():
                raise InterruptedError("stopped")
            nonlocal arrived
            arrived += int(n or 0)
            if file.size and arrived > file.size:
                raise CheckpointError(
                    f"{plan.source}: {file.path} is longer than the {file.size:,} bytes that the "
                    "hub states; do not use it"
                )
            counts.put(int(n or 0))
            return None

    def work() -> None:
        known = inspect.signature(hf_hub_download).parameters
        extra: dict[str, Any] = {"tqdm_class": Counter} if "tqdm_class" in known else {}
        try:
            with _etag_checked(plan, file):
                hf_hub_download(
                    plan.repo, file.path, revision=plan.commit, force_download=again, **extra
                )
            counts.put(None)
        except BaseException as error:
            counts.put(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    done = 0
    try:
        while (item := counts.get()) is not None:
            if isinstance(item, BaseException):
                with _one_line(plan.repo):
                    raise item
            done += item
            yield done
    finally:
        stopped.set()


@contextlib.contextmanager
def _etag_checked(plan: Plan, file: RemoteFile) -> Iterator[None]:
    """Refuse an ETag that is not the planned hash, before the cache makes a path of it."""
    from huggingface_hub import file_download

    ask = file_download.get_hf_file_metadata

    def checked(*args: Any, **kwargs: Any) -> Any:
        found = ask(*args, **kwargs)
        etag, commit = found.etag, found.commit_hash
        said = etag == file.sha256 if file.sha256 else HASH.fullmatch(etag or "") is not None
        if etag is not None and not said:
            raise CheckpointError(
                f"{plan.source}: the hub calls {file.path} {etag!r:.80}, which is not the hash "
                "that it stated; nothing was written, do not use this mirror"
            )
        if commit is not None and commit != plan.commit:
            raise CheckpointError(
                f"{plan.source}: the hub answers with another commit, {commit!r:.60}"
            )
        return found

    file_download.get_hf_file_metadata = checked
    try:
        yield
    finally:
        file_download.get_hf_file_metadata = ask


def _matches(path: Path, file: RemoteFile) -> bool:
    if file.size and path.stat().st_size != file.size:
        return False
    if file.sha256:
        return _sha256(path) == file.sha256
    if file.blob:
        head = f"blob {path.stat().st_size}\0".encode()
        return _digest(path, hashlib.sha1(head, usedforsecurity=False)) == file.blob
    return True


def _sha256(path: Path) -> str:
    return _digest(path, hashlib.sha256())


def _digest(path: Path, digest: Any) -> str:
    with foreign.open_file(path, CheckpointError) as data:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _described(repo: str, sibling: Any) -> RemoteFile:
    """A file as the hub describes it.

    Raises:
        CheckpointError: its name could lead out of the cache, or its size or hash is none.
    """
    name, size, blob = sibling.rfilename, sibling.size or 0, sibling.blob_id
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    plain = name.isprintable() and len(name) <= 400 and not set(name) & set('\\:*?"<>|')
    if not plain or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise CheckpointError(f"hf:{repo}: has a file of the name {name!r:.80}; do not use it")
    if type(size) is not int or not 0 <= size < 1 << 50:
        raise CheckpointError(f"hf:{repo}: states a size of {size!r:.40} for {name}")
    for hashed in (sha256, blob):
        if hashed is not None and not (isinstance(hashed, str) and HASH.fullmatch(hashed)):
            raise CheckpointError(f"hf:{repo}: states a hash of {hashed!r:.60} for {name}")
    return RemoteFile(name, size, sha256, blob)


def _hidden(name: str) -> bool:
    """Whether it is no part of a model. ``..`` begins with a dot, too, but is no name at all."""
    parts = PurePosixPath(name).parts
    return any(part[0] == "." for part in parts) and ".." not in parts


@contextlib.contextmanager
def _one_line(repo: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line of ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise ModelNotFoundError(
            f"hf:{repo}: access needs an agreement; accept it on the model's page, "
            "then `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError(f"hf:{repo}: no such revision; check what follows the @") from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"hf:{repo}: no such public repository; check the name, or `hf auth login`"
        ) from None
    except errors.EntryNotFoundError as error:
        raise ModelNotFoundError(f"hf:{repo}: {_first_line(error)}") from None
    except errors.OfflineModeIsEnabled:
        raise ModelNotFoundError(
            f"hf:{repo}: HF_HUB_OFFLINE forbids the network; unset it, or give the path of a copy"
        ) from None
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise ModelNotFoundError(
            f"hf:{repo}: the hub cannot be reached ({_first_line(error)}); connect and try again, "
            "what was fetched is kept"
        ) from None


def _is_of_the_network(error: Exception) -> bool:
    """huggingface_hub has changed its transport (httpx, httpx2), which raises errors of its own."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    foreign = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "huggingface_hub"}
    return isinstance(error, ConnectionError) or bool(modules & foreign)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
