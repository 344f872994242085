"""``darkroom models``: list, add, pull, remove, verify; convert and merge."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from darkroom.app import values
from darkroom.app.commands import convert
from darkroom.app.outcome import EXIT_CODES, Answer, help_option, usage
from darkroom.app.progress import Progress
from darkroom.app.terminal import bytes_text, say, show, table, waiting
from darkroom.errors import CheckpointError, ConfigError, ModelNotFoundError
from darkroom.weights.registry import MODEL_SUFFIXES
from darkroom.weights.shelves.walk import PICTURES

app = typer.Typer(
    help="List the models on this machine, name them, bring them, check them.",
    epilog="Examples:\n\ndarkroom models list\n\ndarkroom models add ~/models/v1-5.safetensors "
    "--name sd15\n\ndarkroom models add ~/stable-diffusion-webui\n\n"
    f"darkroom models pull hf:owner/name\n\n{EXIT_CODES}",
    invoke_without_command=True,
    rich_markup_mode="rich",
)
JSON = typer.Option("--json", help="One JSON object on stdout.")
NAME = typer.Option(metavar="NAME", help="What to call it. Default: from the file or repository.")


def add_to(parent: typer.Typer) -> None:
    """Register the verb group."""
    convert.add_to(app)
    parent.add_typer(app, name="models")


@app.callback(add_help_option=False)
def models(ctx: typer.Context, asked: Annotated[bool, help_option()] = False) -> None:
    """List the models on this machine, name them, bring them, check them."""
    if ctx.invoked_subcommand is None:
        list_models(ctx)


@app.command("list", epilog=f"Example: darkroom models list --json\n\n{EXIT_CODES}")
def list_models(ctx: typer.Context, json: Annotated[bool, JSON] = False) -> None:
    """Show every model and adapter here: built in, added, in folders, in the cache.

    Kinds are read from headers, once. A name opens what it stands for: --model, --lora and so on.
    """
    from darkroom.app.found import folder_problems, found_models, with_kinds

    answer: Answer = ctx.obj
    found = found_models()
    with waiting("reading headers"):
        found = with_kinds(found)
    answer.fields["models"] = [model.plain() for model in found]
    answer.fields["problems"] = list(folder_problems())
    for problem in answer.fields["problems"]:
        say(problem, "yellow")
    if json:
        return
    if found:
        table(
            ("NAME", "KIND", "WHERE", "SIZE", "PATH"),
            [
                (m.name, f"{m.kind} {m.base}".strip(), m.place, bytes_text(m.size), str(m.path))
                for m in found
            ],
        )
    else:
        say("no model is here; bring one: `darkroom models add PATH` or `pull hf:owner/name`")
    for model in found:
        for problem in model.problems:
            say(f"{model.name}: {problem}", "yellow")


@app.command(
    epilog="Examples:\n\ndarkroom models add ~/models/dreamy.safetensors --name dreamy\n\n"
    f"darkroom models add ~/ComfyUI\n\n{EXIT_CODES}"
)
def add(
    ctx: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            help="A file of weights, a diffusers folder; or a folder of models, such as that of "
            "A1111, Forge, ComfyUI or InvokeAI, or an extra_model_paths.yaml."
        ),
    ],
    name: Annotated[str | None, NAME] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Give a model a name, or have a folder of models looked through from now on.

    Files stay where they are. Of one model the size and SHA-256 are recorded; in a folder of
    models, sub-folders included, each goes by the name of its file.
    """
    from darkroom.app.next_line import line_of
    from darkroom.weights.registry import Stamp, check_name, files_of, hash_files, register

    answer: Answer = ctx.obj
    path = path.expanduser().absolute()
    if _is_collection(path):
        if name is not None:
            raise usage(f"{path} holds many models; each goes by its file's name", "--name")
        _add_folder(answer, path)
        return
    files = files_of(path)
    name = _free_name(check_name(name or _name_from(path)))
    stamps = {}
    with Progress("hashing", sum(f.stat().st_size for f in files.values()), "bytes") as bar:
        for hashed in hash_files(files):
            bar.advance(hashed.done - bar.done)
            if hashed.sha256:
                stamps[hashed.file] = Stamp(files[hashed.file].stat().st_size, hashed.sha256)
    entry = register(name, path, stamps)
    answer.fields |= {"name": name, "path": str(path), "size": entry.size, "files": len(stamps)}
    try:
        kind, base, line = line_of(path, name)
    except CheckpointError as error:
        answer.fields["problem"] = str(error)
        say(f"added {name}: {bytes_text(entry.size)} at {path}")
        say(f"note: it cannot be used as it is: {error}", "yellow")
        return
    answer.fields |= {"kind": kind, "base": base, "next": line}
    say(f"added {name}: {f'{kind} {base}'.strip()}, {bytes_text(entry.size)} at {path}")
    say(f"use it: {line}")


@app.command(
    epilog="Examples:\n\ndarkroom models pull hf:stable-diffusion-v1-5/stable-diffusion-v1-5 "
    f"--variant fp16\n\ndarkroom models pull sd15\n\n{EXIT_CODES}"
)
def pull(
    ctx: typer.Context,
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="[hf:OWNER/NAME[@REV][:FILE]]",
            help="A repository, one file of it, or a known name; without one, those are listed.",
        ),
    ] = None,
    name: Annotated[str | None, NAME] = None,
    variant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Prefer this form of the weights, such as fp16."),
    ] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Download a public model from the Hugging Face hub, check its hashes and name it.

    Run it again after an interruption: it goes on where it stopped.
    """
    from darkroom.app.next_line import line_of
    from darkroom.names import did_you_mean
    from darkroom.weights import pull as hub
    from darkroom.weights.catalog import all_names, lookup
    from darkroom.weights.locate import parse_remote
    from darkroom.weights.registry import check_name

    answer: Answer = ctx.obj
    known = lookup(spec or "")
    if not known and (spec is None or not _is_repository(spec)):
        answer.fields["catalogue"] = _catalogue(json)
        if spec is not None:
            raise ModelNotFoundError(
                f"no model is known as {spec!r}{did_you_mean(spec, all_names())}; expected one of "
                "those above, or hf:owner/name"
            )
        return
    assert spec is not None
    remote = parse_remote(known.name if known else spec)
    known = known or lookup(remote.repository)
    if known:
        remote = replace(remote, repository=known.name)
        say(f"{known.name}: licence {known.licence}{f'; {known.note}' if known.note else ''}")
    stem = remote.repository.rpartition("/")[2]
    if remote.file:
        stem = Path(remote.file).stem
    elif known and known.short:
        stem = known.short[0]
    name = check_name(name or stem)
    plan = hub.plan(remote, variant)
    say(f"{plan.source}: {len(plan.files)} files, {bytes_text(plan.size)}")
    if plan.unstated:
        some = f"{plan.unstated[0]}{', ...' if len(plan.unstated) > 1 else ''}"
        say(f"note: the hub states no hash for {some}: what arrives cannot be checked", "yellow")
    with Progress("pulling", plan.size, "bytes") as bar:
        for progress in hub.pull(plan):
            bar.advance(progress.done - bar.done, progress.file)
    entry = hub.record(plan, name)
    answer.fields |= {
        "name": name,
        "path": str(entry.path),
        "source": plan.source,
        "size": plan.size,
        "files": [f.path for f in plan.files],
        "licence": known.licence if known else None,
    }
    try:
        line = line_of(entry.path, name)[2]
    except CheckpointError:  # what `load` says of it is the better line
        line = f"darkroom inspect {name}"
    answer.fields["next"] = line
    say(f"pulled {name}; use it: {line}")


@app.command(epilog=f"Example: darkroom models remove dreamy\n\n{EXIT_CODES}")
def remove(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR",
            autocompletion=values.complete_registered,
            help="A name you gave, or a folder of models that you added.",
        ),
    ],
    json: Annotated[bool, JSON] = False,
) -> None:
    """Forget a name, or a folder of models. The files stay where they are."""
    from darkroom.weights import registry

    place = Path(name).expanduser().absolute()
    if name not in registry.registered() and registry.remove_folder(place):
        ctx.obj.fields |= {"folder": str(place)}
        say(f"removed the folder {place}; its files stay")
        return
    entry = registry.remove(name)
    ctx.obj.fields |= {"name": name, "path": str(entry.path)}
    say(f"removed the name {name}; its files stay at {entry.path}")


@app.command(epilog=f"Example: darkroom models verify dreamy\n\n{EXIT_CODES}")
def verify(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=values.complete_registered, help="Names you gave. Default: all."
        ),
    ] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Read every byte of the named models and compare with what was recorded.

    Ends with 3 when a file is missing or changed.
    """
    from darkroom.names import did_you_mean
    from darkroom.weights.registry import hash_files, registered, size_problems

    answer: Answer = ctx.obj
    known = registered()
    for name in names or ():
        if name not in known:
            raise ModelNotFoundError(
                f"no model is registered as {name!r}{did_you_mean(name, known)}; "
                "only names from `models add` and `models pull` can be verified"
            )
    chosen = [known[name] for name in names or known]
    answer.fields["models"] = {}
    bad = 0
    for entry in chosen:
        problems = size_problems(entry)
        if not problems:
            files = {file: entry.locate(file) for file in entry.files}
            with Progress(f"verifying {entry.name}", entry.size, "bytes") as bar:
                for hashed in hash_files(files):
                    bar.advance(hashed.done - bar.done)
                    stamp = entry.files[hashed.file]
                    if hashed.sha256 not in (None, stamp.sha256):
                        problems.append(
                            f"{files[hashed.file]}: SHA-256 {hashed.sha256[:12]}..., "
                            f"expected {stamp.sha256[:12]}..."
                        )
        answer.fields["models"][entry.name] = {"path": str(entry.path), "problems": problems}
        bad += bool(problems)
        if not json:
            show(f"{entry.name}: {'; '.join(problems) or 'as recorded'}")
    if not chosen:
        say("no model is registered; `darkroom models add PATH` registers one")
    if bad:
        raise CheckpointError(
            f"{bad} of {len(chosen)} models are not what was recorded; bring the files back, or "
            "remove the names and add them again"
        )


def _is_collection(path: Path) -> bool:
    """Whether a path holds many models, or names folders that do."""
    from darkroom.weights.shelves.comfyui import EXTRA_PATHS
    from darkroom.weights.shelves.walk import is_model_folder

    if not path.is_dir():
        return path.name == EXTRA_PATHS and path.is_file()
    return not is_model_folder({entry.name for entry in path.iterdir()})


def _add_folder(answer: Answer, path: Path) -> None:
    """Record a folder of models, and say what is in it.

    Raises:
        CheckpointError: there is no model in it.
    """
    from collections import Counter

    from darkroom.weights.registry import add_folder
    from darkroom.weights.shelves.walk import models_in

    problems: list[str] = []
    found = [s for s in models_in(path, set(), problems) if s.path.suffix.lower() not in PICTURES]
    for problem in problems:
        say(problem, "yellow")
    if not found:
        raise CheckpointError(
            f"{path}: no model in it or below; expected {' '.join(MODEL_SUFFIXES)} files, or "
            "folders of diffusers"
        )
    add_folder(path)
    kinds = Counter(shelved.kind or "not sorted by its folder" for shelved in found)
    answer.fields |= {"folder": str(path), "models": len(found), "kinds": dict(kinds)}
    answer.fields["problems"] = problems
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    say(f"added the folder {path}: {len(found)} models ({told})")
    say("each goes by the name of its file: `darkroom models list` shows them")


def _is_repository(spec: str) -> bool:
    return spec.startswith("hf:") or "/" in spec


def _catalogue(quiet: bool) -> list[dict[str, str]]:
    """Every published model that is known by a name, shown unless ``quiet``."""
    from darkroom.weights.catalog import CATALOG

    rows = [
        {"name": known.short[0], "repository": known.name, "family": known.family}
        | {"licence": known.licence}
        for known in CATALOG
        if known.short
    ]
    if not quiet:
        table(
            ("NAME", "FAMILY", "LICENCE", "REPOSITORY"),
            [
                (row["name"], row["family"], row["licence"], f"hf:{row['repository']}")
                for row in rows
            ],
        )
    return rows


def _name_from(path: Path) -> str:
    """A name for a file or folder: its own, with odd characters as dashes."""
    import re

    stem = path.name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "model"


def _free_name(name: str) -> str:
    """``name``, unless it is a built-in model's."""
    from darkroom.app.found import found_models

    if any(model.name == name and model.place == "built-in" for model in found_models()):
        raise ConfigError(f"model name {name!r} is a built-in model's; give another with --name")
    return name
