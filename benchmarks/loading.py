"""Time and memory of opening an SD 1.5 folder: Darkroom beside diffusers, in turns.

    python benchmarks/loading.py [--repeats 3] [--json FILE]

Each run is a fresh process with its libraries imported before the clock starts. "used" is after
every weight was read once, as the first step of a generation does: files are mapped, and opening
alone reads little. The folder has the true sizes (4.3 GB in float32) and zeros for weights.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(*arguments.run)))
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for case, (stored, asked) in CASES.items():
            folder = Path(place) / stored
            if not folder.exists():
                make(folder, stored)
            runs: dict[str, list[dict[str, float]]] = {"darkroom": [], "diffusers": []}
            for _ in range(arguments.repeats):
                for library, done in runs.items():
                    command = [sys.executable, __file__, "--run", library, str(folder), asked]
                    output = subprocess.run(command, capture_output=True, text=True, check=True)
                    done.append(json.loads(output.stdout.splitlines()[-1]))
            results[case] = {
                library: {key: statistics.median(r[key] for r in done) for key in done[0]}
                for library, done in runs.items()
            }
            size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e9
            show(case, size, results[case])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def show(case: str, size: float, result: dict[str, dict[str, float]]) -> None:
    print(f"{case} ({size:.2f} GB of files)")
    for library, values in result.items():
        print(
            f"  {library:10} open {values['open_s']:6.2f} s ({values['open_cpu_s']:5.2f} CPU), "
            f"used {values['used_s']:6.2f} s ({values['used_cpu_s']:5.2f} CPU), peak "
            f"{values['open_peak_gb']:5.2f} GB open, {values['used_peak_gb']:5.2f} GB used"
        )


if __name__ == "__main__":
    main()
