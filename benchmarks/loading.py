"""Time and memory of opening an SD 1.5 folder: Darkroom beside diffusers, in turns.

    python benchmarks/loading.py [--repeats 3] [--folder DIR]

Each run is a fresh process. "open" is loading alone, with the libraries imported; "from nothing" is
what a program waits that has imported torch: the library's import and loading. "used" is loading
and reading every weight once, as the first step of a generation does: files are mapped, and opening
alone reads little. Medians, ratios in wall and CPU time, written to results/. The folder has the
true sizes (4.3 GB in float32) and zeros for weights.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

CASES = {  # name: dtype in the files, dtype asked for
    "float32 as float32": ("float32", "float32"),
    "float16 as float16": ("float16", "float16"),
    "float16 as float32": ("float16", "float32"),
}


def make(folder: Path, dtype: str) -> None:
    """Write an SD 1.5 folder of true size."""
    import torch

    from darkroom.models import autoencoder, clip_text, unet
    from darkroom.weights.layouts import single_file
    from darkroom.weights.load import load
    from darkroom.weights.save import save

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from weights.sparse import write_sparse

    parts = {
        "unet": (unet.UNet, unet.SD15),
        "autoencoder": (autoencoder.Autoencoder, autoencoder.SD_AUTOENCODER),
        "text": (clip_text.ClipTextModel, clip_text.CLIP_L),
    }
    with torch.device("meta"):
        state = single_file.join(
            {name: (config, kind(config).state_dict()) for name, (kind, config) in parts.items()},
            single_file.SD1,
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    hollow = write_sparse(folder.with_suffix(".safetensors"), shapes, dtype)
    save(load(hollow, dtype=dtype, device="cpu"), folder)
    hollow.unlink()


def run(library: str, folder: str, dtype: str) -> dict[str, float]:
    """Load once in this process."""
    import torch

    torch.set_num_threads(1)
    began, began_cpu = time.perf_counter(), time.process_time()
    if library == "darkroom":
        from darkroom.weights.load import load

        def open_it():
            model = load(folder, dtype=dtype, device="cpu")
            return model.unet, model.autoencoder, model.text_encoder
    else:
        from diffusers import StableDiffusionPipeline
        from diffusers.utils import logging

        logging.disable_progress_bar()

        def open_it():
            pipeline = StableDiffusionPipeline.from_pretrained(
                folder, torch_dtype=getattr(torch, dtype), local_files_only=True
            )
            return pipeline.unet, pipeline.vae, pipeline.text_encoder

    before = peak()
    started, cpu = time.perf_counter(), time.process_time()
    networks = open_it()
    opened, opened_cpu, opened_peak = time.perf_counter(), time.process_time(), peak()
    with torch.no_grad():
        sum(p.view(-1)[::512].float().sum() for n in networks for p in n.parameters())
    return {
        "nothing_s": opened - began,
        "nothing_cpu_s": opened_cpu - began_cpu,
        "open_s": opened - started,
        "open_cpu_s": opened_cpu - cpu,
        "used_s": time.perf_counter() - started,
        "used_cpu_s": time.process_time() - cpu,
        "open_peak_gb": opened_peak - before,
        "used_peak_gb": peak() - before,
        "weights_gb": sum(p.nbytes for n in networks for p in n.parameters()) / 1e9,
    }


def peak() -> float:
    """Largest resident size of this process so far, in GB; of this program, not of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps the checkpoints (6.4 GB)")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(*arguments.run)))
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for case, (stored, asked) in CASES.items():
            folder = (arguments.folder or Path(place)) / stored
            if not folder.exists():
                make(folder, stored)
            runs: dict[str, list[dict[str, float]]] = {"darkroom": [], "diffusers": []}
            for turn in range(arguments.repeats):
                for library, done in runs.items() if turn % 2 else reversed(runs.items()):
                    command = [sys.executable, __file__, "--run", library, str(folder), asked]
                    output = subprocess.run(command, capture_output=True, text=True, check=True)
                    done.append(json.loads(output.stdout.splitlines()[-1]))
            results[case] = {
                library: {key: statistics.median(r[key] for r in done) for key in done[0]}
                for library, done in runs.items()
            }
            print(case, json.dumps(results[case]), file=sys.stderr, flush=True)
    facts = machine.describe(1)
    fields = {"machine": facts, "cases": results}
    text = markdown(fields)
    print(text, *machine.write(arguments.out, f"loading-{machine.slug(facts)}", fields, text))


def markdown(fields: dict[str, Any]) -> str:
    lines = [
        "# Loading an SD 1.5 folder of true size beside diffusers",
        "",
        machine.line(fields["machine"]),
        "",
        "Fresh processes on one thread, in turns; medians, in seconds. Open: loading alone. From "
        "nothing: importing the library (after torch) and loading. Used: loading, and reading "
        "every weight once. Ratios are diffusers' figure over ours, above 1 is quicker or smaller.",
        "",
        "| files, asked for | | diffusers | darkroom | ratio | ratio of CPU time |",
        "|---|---|---|---|---|---|",
    ]
    for case, result in fields["cases"].items():
        ours, theirs = result["darkroom"], result["diffusers"]
        for name, key in (("open", "open"), ("from nothing", "nothing"), ("used", "used")):
            wall, cpu = (theirs[f"{key}{k}"] / ours[f"{key}{k}"] for k in ("_s", "_cpu_s"))
            lines.append(
                f"| {case} | {name} | {theirs[f'{key}_s']:.2f} | {ours[f'{key}_s']:.2f} | "
                f"**{wall:.2f}** | {cpu:.2f} |"
            )
        peaks = [result[name]["used_peak_gb"] for name in ("diffusers", "darkroom")]
        lines.append(
            f"| {case} | peak, GB (weights {ours['weights_gb']:.2f}) | {peaks[0]:.2f} | "
            f"{peaks[1]:.2f} | **{peaks[0] / peaks[1]:.2f}** | |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
