"""From what a user types to a path: names, aliases and remote repositories, local copies first.

The network is used for a remote name only (``hf:owner/name``, or a repository of the catalogue),
and only when what it needs is not on this machine yet. All files of a download come from one
resolved commit. ``HF_HOME``, ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` mean what they mean elsewhere.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import CheckpointError, ModelNotFoundError
from darkroom.names import did_you_mean
from darkroom.weights import registry
from darkroom.weights.catalog import Known, all_names, lookup
from darkroom.weights.shelves import Shelved, one_called, open_shelves
from darkroom.weights.shelves.kinds import kind_of
from darkroom.weights.shelves.walk import ADAPTERS

log = logging.getLogger(__name__)
ASSETS = Path(__file__).parent.parent / "assets"
REMOTE = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>[\w./ ()+-]+))?"
)
WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Located:
    """Where a model is, and what the catalogue knows of it."""

    path: Path
    known: Known | None = None
    source: str = ""  # what was asked for, when it was not simply the path


@dataclass(frozen=True)
class Remote:
    """``hf:owner/name[@revision][:file]``."""

    repository: str
    revision: str | None = None  # a branch, tag or commit; None = main
    file: str | None = None  # one file of the repository

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repository}{revision}" + (f":{self.file}" if self.file else "")


def locate(name: str | os.PathLike[str], variant: str | None = None) -> Located:
    """Find what ``name`` means, downloading it if it is a remote name not here yet.

    In this order: ``hf:...``; a registered or built-in name; a path; the name of a file in a folder
    of models; a name of the catalogue; a repository in the local cache of huggingface_hub.

    Args:
        variant: prefer weights of this variant ("fp16") when downloading.

    Raises:
        ModelNotFoundError: with the nearest names, and what to do.
    """
    text = os.fspath(name)
    if not text:
        raise ModelNotFoundError("the model's name is empty; give a name, a file or a folder")
    if text.startswith("hf:"):
        remote = parse_remote(text)
        return Located(fetch(remote, variant), lookup(remote.repository), text)
    if isinstance(name, str) and "/" not in text and os.sep not in text:
        named = registry.resolve(text)
        if named is not None:
            return Located(named, None, text)
        if text in built_in_names():
            return Located(ASSETS / text, None, text)
    path = Path(text).expanduser()
    if path.exists():
        return Located(path)
    shelves = open_shelves()
    if shelved := one_called(text, shelves.found, _is_model):
        return Located(shelved.path, None, text)
    known = lookup(text)
    if known is not None:
        return Located(fetch_known(known, text, variant), known, text)
    if REMOTE.fullmatch(text) and (cached := cached_folder(parse_remote(f"hf:{text}"))):
        return Located(cached, None, text)
    raise _not_found(text, path, list(shelves.names().values()))


def _is_model(shelved: Shelved) -> bool:
    return (shelved.kind or kind_of(shelved.path)) not in ADAPTERS


def needs_network(name: str) -> bool:
    """Whether ``locate`` would have to download what ``name`` means; opens no connection."""
    if name.startswith(("//", "\\\\")) or "://" in name:
        return True  # of another machine, on Windows
    if name.startswith("hf:"):
        try:
            remote = parse_remote(name)
        except ModelNotFoundError:
            return True
        folder = cached_folder(remote)
        if folder is None:
            return True
        return not ((folder / remote.file).is_file() if remote.file else is_complete(folder))
    local = "/" not in name and (registry.resolve(name) or name in built_in_names())
    if not name or local or Path(name).expanduser().exists():
        return False
    known = lookup(name)
    if known is None:
        return False
    folders = (cached_folder(Remote(copy)) for copy in (known.name, *known.aliases))
    return not any(folder and is_complete(folder) for folder in folders)


def parse_remote(text: str) -> Remote:
    """Take ``hf:owner/name[@revision][:file]`` apart."""
    match = REMOTE.fullmatch(text.removeprefix("hf:"))
    if match is None or ".." in text:
        raise ModelNotFoundError(
            f"{text!r} is not a remote name; expected hf:owner/name, hf:owner/name@revision "
            "or hf:owner/name:file.safetensors"
        )
    return Remote(match["repository"], match["revision"], match["file"])


def built_in_names() -> list[str]:
    """The models that come with Darkroom."""
    indices = (*ASSETS.glob("*/model_index.json"), *ASSETS.glob("*/config.json"))
    return sorted(index.parent.name for index in indices)


def parts_elsewhere(index: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """The folders of those parts of a pipeline that are a built-in model's own.

    Its model_index.json says so in ``_darkroom.parts_of``: ``{"emoji": ["vae", ...]}``. So a
    built-in model that was made of another one need not repeat what they share.

    Raises:
        CheckpointError: a part is not there, or is in ``folder`` as well.
    """
    found: dict[str, Path] = {}
    own = index.get("_darkroom")
    said = own.get("parts_of", {}) if isinstance(own, dict) else {}
    for name, parts in said.items() if isinstance(said, dict) else [(said, None)]:
        if not isinstance(parts, list):
            raise CheckpointError(
                f"{folder}: parts_of {said!r:.60} in model_index.json: expected a built-in model "
                "and a list of its parts"
            )
        for part in parts:
            known = name in built_in_names() and str(part).isidentifier()
            if not known or not (ASSETS / name / part).is_dir():
                raise CheckpointError(
                    f"{folder}: its {part} is that of the built-in model {name!r}, which this "
                    f"Darkroom lacks; it has {', '.join(built_in_names()) or 'none'}"
                )
            if part in found or (folder / part).exists():
                raise CheckpointError(f"{folder}: {part} is here and in {name!r}; remove one")
            found[part] = ASSETS / name / part
    return found


def cached_folder(remote: Remote) -> Path | None:
    """The snapshot of a repository in huggingface_hub's cache; opens no connection."""
    repository = cache_root() / f"models--{remote.repository.replace('/', '--')}"
    revision = remote.revision or "main"
    reference = repository / "refs" / revision
    try:
        commit = foreign.read_text(reference, CheckpointError, 1000).strip()
    except CheckpointError:
        commit = revision  # may be a commit itself
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def cache_root() -> Path:
    """Where huggingface_hub keeps its downloads, by its own rules, without importing it."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "hub"


def fetch_known(known: Known, asked: str, variant: str | None) -> Path:
    """A catalogued model: any cached copy under any of its names, else a download."""
    repositories = (known.name, *known.aliases)
    for repository in repositories:
        folder = cached_folder(Remote(repository))
        if folder is not None and is_complete(folder):
            return folder
    try:
        return fetch(Remote(known.name), variant)
    except ModelNotFoundError as error:
        note = f" ({known.note})" if known.note else ""
        raise ModelNotFoundError(f"{asked!r} is {known.name} today{note}: {error}") from None


def fetch(remote: Remote, variant: str | None = None) -> Path:
    """The local folder, or file, of a remote name; downloads what is missing.

    Raises:
        ModelNotFoundError: offline, no such repository, or no leave to read it.
    """
    folder = cached_folder(remote)
    if folder is not None and remote.file is not None and (folder / remote.file).is_file():
        return folder / remote.file
    if folder is not None and remote.file is None and is_complete(folder):
        return folder
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise ModelNotFoundError(
            f"{remote} is not in the cache {cache_root()}, and HF_HUB_OFFLINE forbids the network; "
            "unset it, or give the path of a copy"
        )
    return _download(remote, variant)


def _download(remote: Remote, variant: str | None) -> Path:
    from darkroom.weights import pull

    plan = pull.plan(remote, variant)
    if plan.unstated:
        log.warning("%s: the hub states no hash for %s: unchecked", remote, plan.unstated[0])
    for _ in pull.pull(plan):
        pass
    file = pull.local(plan, plan.files[0].path)
    snapshot = file.parents[plan.files[0].path.count("/")]
    _remember(snapshot, remote.revision or "main")
    return snapshot if remote.file is None else file


def _remember(snapshot: Path, revision: str) -> None:
    """Note which commit a branch or tag was, so that it is found without a connection."""
    if snapshot.name == revision:
        return
    reference = snapshot.parents[1] / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(reference) as file:
        file.write(snapshot.name.encode("ascii"))


def best_set(files: Iterable[str], variant: str | None = None) -> list[str]:
    """Of the weight files of one part, those of one complete set: all shards, or one file.

    safetensors before pickles; the wanted variant first, then none, then any.
    """
    sets: dict[tuple[str, str], list[str]] = {}
    for file in files:
        stem, suffix = os.path.splitext(file)
        stem = re.sub(r"-\d{5}-of-\d{5}", "", stem)
        found = stem.partition(".")[2]
        sets.setdefault((suffix, found), []).append(file)

    def rank(key: tuple[str, str]) -> tuple[bool, int, str, str]:
        suffix, found = key
        liking = 0 if found == (variant or "") else 1 if not found else 2
        return found == "non_ema", liking * 10 + (suffix != ".safetensors") * 5, found, suffix

    if not sets:
        return []
    best = sets[min(sets, key=rank)]
    shards = [file for file in best if re.search(r"-\d{5}-of-\d{5}", file)]
    return sorted(shards) if shards else sorted(best)[:1]


SKIPPED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})


def is_complete(folder: Path) -> bool:
    """Whether a snapshot has weights for everything that its model_index.json names."""
    index = folder / "model_index.json"
    if not index.is_file():
        weights = any(path.suffix in WEIGHTS for path in folder.iterdir())
        return weights and any(
            (folder / name).is_file() for name in ("config.json", "open_clip_config.json")
        )
    try:
        parts = foreign.read_object(index, CheckpointError)
    except CheckpointError:
        return False
    for part, entry in parts.items():
        if part.startswith("_") or part in SKIPPED or not isinstance(entry, list):
            continue
        if len(entry) != 2 or not isinstance(entry[1], str):
            continue
        needs_weights = not entry[1].endswith(("Scheduler", "Tokenizer", "TokenizerFast"))
        inner = (
            folder / part if (folder / part).is_dir() else folder
        )  # old ones have all at the root
        if inner is folder and not (folder / "config.json").is_file():
            return False
        files = [path.name for path in inner.iterdir() if path.suffix in WEIGHTS]
        if needs_weights and not best_set(files):
            return False
    return True


def _not_found(text: str, path: Path, shelved: list[str]) -> ModelNotFoundError:
    if "/" in text or os.sep in text or path.suffix in WEIGHTS:
        remote = (
            REMOTE.fullmatch(text)
            and path.suffix not in WEIGHTS
            and not text.startswith((".", "~", "/"))
        )
        hint = did_you_mean(text, all_names())
        if remote:
            return ModelNotFoundError(
                f"{text!r} is no file or folder here{hint or f'; to download it say hf:{text}'}"
            )
        near = did_you_mean(path.name, _names_in(path.parent))
        near = near or did_you_mean(path.stem, shelved)
        return ModelNotFoundError(f"{text}: no such file or folder{near or '; check the path'}")
    names = [*built_in_names(), *registry.registered(), *shelved, *all_names()]
    return ModelNotFoundError(
        f"no model is called {text!r}{did_you_mean(text, names)}; give a built-in name "
        f"({', '.join(built_in_names()) or 'none installed'}), the path of a file or folder, or "
        "hf:owner/name"
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
