"""The rules of the house that a machine can check: layers, sizes, names, imports without work."""

import ast
import functools
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import darkroom as dr

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "darkroom"
TESTS = ROOT / "tests"
SOFT, HARD = 400, 600  # lines
FORBIDDEN_NAMES = {"utils", "util", "common", "core", "base", "helpers", "helper", "manager"}
ORACLES = {
    "cv2", "diffusers", "einops", "peft", "pycocotools", "scipy", "skimage", "torchvision",
    "transformers", "ultralytics",
}  # fmt: skip

# Modules (and packages) that no test imports by name, and the test that runs them nevertheless.
THROUGH = {
    "darkroom.app.commands": "app/test_app_verbs.py",
    "darkroom.app.doctor": "app/test_app_verbs.py",
    "darkroom.app.drawing": "app/test_app_generate.py",
    "darkroom.app.found": "app/test_app_generate.py",
    "darkroom.app.options": "app/test_app_generate.py",
    "darkroom.app.planned": "app/test_app_verbs.py",
    "darkroom.app.seeing": "app/seeing/test_app_classify.py",
    "darkroom.app.session": "app/test_app_generate.py",
    "darkroom.app.timing": "app/test_app_verbs.py",
    "darkroom.atomic": "generation/test_generation_metadata.py",
    "darkroom.diffusion.pixel_diffusion": "test_examples.py",
    "darkroom.diffusion.rounded": "diffusion/test_diffusion_trajectories.py",
    "darkroom.diffusion.sampler_options": "diffusion/test_diffusion_trajectories.py",
    "darkroom.diffusion.samplers": "diffusion/test_diffusion_samplers.py",
    "darkroom.generation.asked": "test_arguments.py",
    "darkroom.generation.decode": "generation/test_generation_runs.py",
    "darkroom.generation.fingerprint": "generation/test_generation_runs.py",
    "darkroom.generation.memory": "generation/test_generation_runs.py",
    "darkroom.generation.metadata": "generation/test_generation_metadata.py",
    "darkroom.generation.preview": "generation/test_generation_runs.py",
    "darkroom.generation.timeline": "generation/test_generation_runs.py",
    "darkroom.models.patch_discriminator": "recipes/test_latent_recipes.py",
    "darkroom.models.sam": "models/sam/test_sam_network.py",
    "darkroom.recipes.report": "recipes/test_recipes.py",
    "darkroom.recipes.runs": "recipes/test_recipes.py",
    "darkroom.recipes.running.sizes": "recipes/running/test_recipe_sizes.py",
    "darkroom.recipes.running.stopping": "recipes/running/test_runs.py",
    "darkroom.recipes.running.tracking": "recipes/running/test_runs.py",
    "darkroom.text.plan": "text/test_prompt_encoder.py",
    "darkroom.text.tokenizer_files": "text/test_tokenizer.py",
    "darkroom.train": "test_train.py",
    "darkroom.training.captions": "recipes/test_recipes.py",
    "darkroom.training.data.captioned": "recipes/test_recipes.py",
    "darkroom.training.data.labelled": "training/data/test_labelled.py",
    "darkroom.training.data.opening": "training/data/test_opening.py",
    "darkroom.training.data.pictures": "training/data/test_shards.py",
    "darkroom.training.distributed": "training/test_fit.py",
    "darkroom.training.saving": "recipes/test_recipes.py",
    "darkroom.training.sharding": "training/test_distributed.py",
    "darkroom.weights.assemble": "weights/test_load_folder.py",
    "darkroom.weights.configs": "weights/test_load_folder.py",
    "darkroom.weights.families": "weights/test_load_file.py",
    "darkroom.weights.folder": "weights/test_load_folder.py",
    "darkroom.weights.inspect": "weights/test_inspect.py",
    "darkroom.weights.pull": "weights/test_load_names.py",
    "darkroom.weights.readers": "weights/test_hostile.py",
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def sources(folder: Path = SRC) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_of(path) for path in sources() if path.name != "__main__.py"]


def python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints; it writes no .pyc files."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- layers


def test_layers_point_one_way():
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_oracles_are_not_imported():
    """Nor by ``import_module("...")``, which import-linter does not see."""
    found = []
    for path in sources():
        for node in ast.walk(parsed(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and node.args:
                called = ast.unparse(node.func).rpartition(".")[2]
                first = node.args[0]
                if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                    names = [str(first.value)]
            found += [f"{path}: {name}" for name in names if name.partition(".")[0] in ORACLES]
    assert not found


# --- files of others

READING = {  # calls that open or read a file, or parse what may be one of others
    "open", "read_bytes", "read_text", "load", "loads", "memmap", "fromfile", "safe_open", "mmap",
    "GzipFile", "ZipFile", "is_zipfile", "decompress",
}  # fmt: skip
OPENERS = {  # the modules that do so, and what they open
    "foreign": "everything",
    "images": "bytes that foreign read",
    "weights.readers.opening": "what foreign opened",
    "weights.readers.safetensors_header": "a header that was mapped",
    "weights.readers.zip_archive": "a member that was mapped",
    "training.data.labelled": "what foreign opened",
    "training.data.scenes": "a picture that it made itself",
    "training.data.shards": "its own index in the cache",
    "weights.adapters.embeddings": "bytes of a picture that was opened",
    "generation.metadata.chunks": "text of a picture that was opened; ComfyUI writes NaN",
    "generation.metadata.exif": "bytes of a picture that was opened",
    "generation.metadata.pairs": "text of a picture that was opened",
    "atomic": "a folder, to have its names written",
    "vision.automatic_masks": "masks that it packed itself",
    "config": "a value of the command line",
    "text.tokenizer": "the vocabulary that comes with Darkroom",
    "machine": "what Linux says of the machine",
    "ops.speeds": "its own figures in the cache",
    "recipes.runs": "its own log",
    "training.data.public.unpack": "what foreign opened",
    "vision.search.store": "its own index",
}
WRITING = re.compile(r"""["'](w|a|wb|ab|w\+b|r\+b)["']""")  # as a mode
OURS = {"load", "open"}  # also names of functions and methods of ours


def test_files_of_others_are_opened_in_one_place():
    """By ``darkroom.foreign``, with its limits; each other module is here with its reason."""
    found = {}
    for path in sources():
        module = module_of(path).partition(".")[2]
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and _reads(node):
                found.setdefault(module, []).append(f"{node.lineno}: {ast.unparse(node)[:80]}")
    assert not {module: calls for module, calls in found.items() if module not in OPENERS}
    assert not OPENERS.keys() - found.keys(), "take it off the list"


def _reads(call: ast.Call) -> bool:
    whole = ast.unparse(call.func)
    owner, _, name = whole.rpartition(".")
    if name not in READING or owner == "foreign" or WRITING.search(ast.unparse(call)):
        return False
    if name in OURS:  # of the libraries' own, and of paths
        foreign_owners = ("json", "np", "torch", "tomllib", "Image", "tarfile", "gzip", "io", "os")
        return (owner in foreign_owners) if owner else name == "open"
    return True


# --- sizes and names


def test_files_are_small():
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in sources()}
    long = {str(path.relative_to(ROOT)): n for path, n in lines.items() if n > SOFT}
    assert not {path: n for path, n in long.items() if n > HARD}
    assert len(long) <= len(lines) / 20, f"too many over the soft limit: {long}"


def test_names_say_something():
    vague = [
        path
        for path in sources()
        if FORBIDDEN_NAMES & {*path.relative_to(SRC).parent.parts, path.stem}
    ]
    assert not vague


def test_no_with_around_a_yield():
    """A ``with`` around a yield (of no_grad, say) leaks into the caller; an open file does not."""
    found = []
    for path in sources():
        for function in ast.walk(parsed(path)):
            if isinstance(function, ast.FunctionDef) and not _is_context_manager(function):
                for block in _own(function):
                    leaks = isinstance(block, ast.With) and not all(
                        re.search(r"\bopen(_file)?\(", ast.unparse(item.context_expr))
                        for item in block.items
                    )
                    if leaks and any(isinstance(n, ast.Yield | ast.YieldFrom) for n in _own(block)):
                        found.append(f"{path.relative_to(ROOT)}: {function.name}")
    assert not found


def _is_context_manager(function: ast.FunctionDef) -> bool:
    return any("contextmanager" in ast.unparse(d) for d in function.decorator_list)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What is in ``node``, but not in functions defined there."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from _own(child)


def test_committed_text_names_no_machine():
    """Neither this machine's folders nor the hosts of package registries."""
    words = ["/" + "work/", "pypi" + ".org", "registry." + "npmjs", "files.python" + "hosted"]
    endings = {".py", ".md", ".toml", ".txt", ".yml", ".json", ".cfg", ".jsonl", ""}
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix in endings:
            text = path.read_text("utf-8", errors="replace")
            found += [f"{name}: {word}" for word in words if word in text]
    assert not found


# --- public names


@pytest.mark.parametrize("module", MODULES)
def test_exported_names(module):
    """Every module imports; its ``__all__`` is sorted, as ruff sorts, and every name is there."""
    exported = getattr(importlib.import_module(module), "__all__", [])
    assert list(exported) == sorted(exported, key=_kind)
    assert len(set(exported)) == len(exported)
    for name in exported:
        assert hasattr(importlib.import_module(module), name)


def _kind(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions."""
    if name.isupper():
        return 0, name
    return (1, name) if name[:1].isupper() else (2, name)


def test_public_names_are_typed_and_listed_alike():
    """The lazy table, ``__all__``, ``dir()`` and the imports that type checkers see agree."""
    tree = parsed(SRC / "__init__.py")
    typed = {
        alias.asname or alias.name: f"{node.module}"
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: f"darkroom.{home}" for name, home in dr._HOMES.items()}
    assert homes == typed
    assert set(dr.__all__) == set(homes)
    assert set(dr.__all__) <= set(dir(dr))
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        _ = dr.Pipeline


def test_the_design_s_names_are_there():
    assert {"load", "save", "develop", "generate", "Guidance", "ImageToImage"} <= set(dr.__all__)
    assert {"dtype", "device"} <= set(inspect.signature(dr.load).parameters)
    arguments = set(inspect.signature(dr.generate).parameters)
    assert {"seeds", "steps", "size", "sampler", "spacing"} <= arguments
    guidance = list(inspect.signature(dr.Guidance).parameters)
    assert guidance[:4] == ["scale", "negative", "rescale", "interval"]
    assert list(inspect.signature(dr.ImageToImage).parameters)[:2] == ["image", "strength"]
    from darkroom.generation.picture import Picture

    assert {"image", "params"} <= set(Picture.__dataclass_fields__)
    assert callable(Picture.save)


def test_samplers_and_spacings_have_the_design_s_names():
    from darkroom.diffusion.samplers import SAMPLERS
    from darkroom.diffusion.spacing import SPACINGS
    from darkroom.names import SAMPLER_NAMES, SPACING_NAMES

    samplers = (
        "ddpm ddim pndm lms heun euler euler_ancestral dpmpp_2m dpmpp_2m_sde dpmpp_3m_sde "
        "dpmpp_sde dpmpp_2s dpm2 dpm2_ancestral deis dpm_singlestep unipc lcm tcd"
    ).split()
    spacings = "leading trailing linspace karras exponential beta sgm_uniform".split()
    assert list(SAMPLER_NAMES) == samplers
    assert set(SAMPLERS) == set(samplers)
    assert list(SPACING_NAMES) == spacings
    assert set(SPACINGS) == set(spacings)


def test_the_command_has_the_design_s_verbs_and_options():
    import typer

    from darkroom.app.cli import app

    command = typer.main.get_command(app)
    verbs = command.commands  # pyright: ignore[reportAttributeAccessIssue]
    assert {"generate", "models", "inspect", "doctor", "bench", "train"} <= set(verbs)
    options = {option for p in verbs["generate"].params for option in p.opts}
    wanted = (
        "--model --negative --steps --sampler --spacing --guidance --seed --count --size "
        "--image --strength --from --out --json --prompts"
    )
    assert set(wanted.split()) <= options
    for verb in ("inspect", "doctor", "bench", "train"):
        assert "--json" in {option for p in verbs[verb].params for option in p.opts}


# --- importing does no work

WATCHED = """
import json, os, random, sys, threading, warnings
import numpy, torch
CODE = (".py", ".pyc", ".so", ".pyd", ".dylib")
NEVER = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "urllib.",
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.putenv",
    "shutil.", "tempfile.", "ctypes.dlopen", "webbrowser.", "os.startfile")
def watch(event, args):
    if event == "open" and not str(args[0]).endswith(CODE):
        raise SystemExit(f"importing opened {args[0]!r}")
    if event == "open" and set(str(args[1] or "r")) & set("wax+"):
        raise SystemExit(f"importing wrote {args[0]!r}")
    if event.startswith(NEVER):
        raise SystemExit(f"importing did {event} {args!r}")
def cuda(*args, **kwargs):
    raise SystemExit("importing woke CUDA")
torch.cuda.init = torch.cuda._lazy_init = cuda
def state():
    return {"environment": dict(os.environ), "threads": threading.active_count(),
        "torch threads": torch.get_num_threads(), "seed": torch.initial_seed(),
        "torch random": torch.get_rng_state().tolist(), "random": random.getstate(),
        "folder": os.getcwd(), "warnings": list(warnings.filters),
        "dtype": torch.get_default_dtype(), "gradients": torch.is_grad_enabled()}
def watched(modules):
    before = state()
    sys.addaudithook(watch)
    for name in modules:
        __import__(name)
    after = state()
    changed = [key for key in before if before[key] != after[key]]
    if changed:
        raise SystemExit(f"importing changed {', '.join(changed)}")
"""


def test_importing_does_no_work():
    """No file but code, no socket, no process, no CUDA, no change of the process's state.

    What darkroom imports of others is imported first, unwatched: their work is theirs.
    """
    names = "for name in json.loads(sys.argv[1]): __import__(name)\n"
    listing = "print(json.dumps([n for n in sys.modules if n.partition('.')[0] != 'darkroom']))"
    everything = json.dumps(MODULES)
    foreign = json.loads(python("import json, sys\n" + names + listing, everything))
    foreign.remove("__main__")
    first = (
        "for name in json.loads(sys.argv[1]):\n"
        "    try: __import__(name)\n"
        "    except ImportError: pass\n"  # what its own package imports conditionally
        "watched(json.loads(sys.argv[2]))\n"
    )
    python(WATCHED + first, json.dumps(foreign), everything)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="tries each in a fork")
def test_the_watch_would_notice(tmp_path):
    busy = {
        "wrote": "open('x.py', 'w')",
        "opened": "open('/etc/hostname')",
        "did socket": "import socket; socket.socket()",
        "did subprocess": "import subprocess, sys; subprocess.run([sys.executable, '-V'])",
        "woke CUDA": "import torch; torch.cuda.init()",
        "changed seed, torch random": "import torch; torch.manual_seed(3)",
        "changed environment": "import builtins, os; os.environ._data[b'A'] = b'b'",
        "changed warnings": "import warnings; warnings.simplefilter('ignore')",
        "": "X = 1",
    }
    for i, line in enumerate(busy.values()):
        (tmp_path / f"busy{i}.py").write_text(line)
    each = f"""
import socket, subprocess
sys.path.insert(0, sys.argv[1])
for i in range({len(busy)}):
    sys.stdout.flush()
    if os.fork() == 0:
        said = ""
        try: watched([f"busy{{i}}"])
        except SystemExit as stop: said = str(stop)
        os.write(1, (said + chr(10)).encode())
        os._exit(0)
    os.wait()
"""
    said = python(WATCHED + each, str(tmp_path)).split("\n")
    for sentence, expected in zip(said, busy, strict=False):
        assert (expected in sentence) if expected else sentence == "", said


def test_help_needs_no_torch():
    code = "import sys, darkroom, darkroom.app.cli\nprint('torch' in sys.modules)"
    assert python(code).strip() == "False"


def test_importing_is_cheap():
    """It brings itself and nothing else; benchmarks/run.py has the seconds."""
    code = (
        "import sys, importlib, typing\nbefore = set(sys.modules)\nimport darkroom\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    assert python(code).split() == ["darkroom"]


# --- tests


def test_no_test_compares_seconds():
    """A busy machine or another processor would break it: count work (``bounded.py``) instead.

    Waiting for another process with a far limit is what remains.
    """
    clock = r"perf_counter|process_time|thread_time"
    timed = [
        str(path.relative_to(TESTS))
        for path in sources(TESTS)
        if re.search(clock, path.read_text("utf-8"))
    ]
    assert timed == ["test_architecture.py", "weights/test_hostile.py"], timed  # the latter prints


def test_every_module_is_tested():
    """Some test imports it by name, or ``THROUGH`` says which test runs it."""
    imported = set()
    for path in sources(TESTS):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    homes = {f"darkroom.{home}" for home in dr._HOMES.values()}  # reached as dr.load and so on
    empty = {module_of(p) for p in sources() if not parsed(p).body[1:]}
    untested = sorted(set(MODULES) - imported - homes - empty)
    left = [m for m in untested if not any(f"{m}.".startswith(f"{t}.") for t in THROUGH)]
    assert not left
    for module, test in THROUGH.items():
        assert module in MODULES, f"{module} is gone: take it off the list"
        assert (TESTS / test).exists(), f"{module}: {test} is gone"


def test_tests_mirror_the_source():
    packages = {path.parent.relative_to(SRC).parts[0] for path in sources() if path.parent != SRC}
    filled = {p for p in packages if len(sources(SRC / p)) > 1}
    assert not [p for p in sorted(filled) if not list((TESTS / p).rglob("test_*.py"))]


def test_test_files_have_names_of_their_own():
    """Without packages pytest cannot tell two files of one name apart."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})


def test_no_markers_of_unfinished_work():
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources()
        for line in path.read_text("utf-8").splitlines()
        if pattern.search(line)
    ]
    assert not found
