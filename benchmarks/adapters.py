"""Time and memory of loading and applying a LoRA: Darkroom beside diffusers and peft, in turns.

    python benchmarks/adapters.py [--repeats 3] [--folder DIR] [--tiny]

A LoRA of rank 64 for all linear layers of SD 1.5's transformers and of its text tower (kohya's
names, random numbers, 0.2 GB as float16), on the model in float32. Each run is a fresh process with
the model open and its weights read. "Live": the LoRA is read and attached, and every number of it
read once. "Fused": it is read and written into the weights. "Undone": from fused to the weights as
they were. Memory is the peak above what the open model takes. Medians, ratios in wall and CPU time.
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

import checkpoint
import machine

LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out",
    "q_proj", "k_proj", "v_proj", "out_proj", "mlp.fc1", "mlp.fc2",
)  # fmt: skip
WEIGHT = 0.8


def make(model: Path, dtype: str, path: Path, rank: int) -> None:
    """Write the LoRA."""
    import torch
    from safetensors.torch import save_file

    from darkroom.weights.adapters.lora import networks
    from darkroom.weights.layouts import lora
    from darkroom.weights.load import load

    parts = networks(load(model, device="meta"))
    names, g, state = lora.layer_names(parts), torch.Generator().manual_seed(1), {}
    kohya = {place: name for name, place in reversed(names.items()) if name.startswith("lora_")}
    dotted = {place: name for name, place in reversed(names.items()) if "." in name}
    for place, stem in kohya.items():
        if not dotted[place].endswith(LAYERS):
            continue
        out, inputs = parts[place[0]].get_submodule(place[1]).weight.shape[:2]
        kernel = (1, 1) if stem.endswith(("proj_in", "proj_out")) else ()
        down, up = (rank, inputs, *kernel), (out, rank, *kernel)
        for name, shape in (("lora_down.weight", down), ("lora_up.weight", up)):
            values = torch.randn(shape, generator=g) * 0.02
            state[f"{stem}.{name}"] = values.to(getattr(torch, dtype))
        state[f"{stem}.alpha"] = torch.tensor(float(rank) / 2)
    save_file(state, path)


def run(library: str, task: str, folder: str, lora: str) -> dict[str, float]:
    """Apply once in this process."""
    import torch

    torch.set_num_threads(1)
    apply = _darkroom if library == "darkroom" else _diffusers
    networks, applied, undo = apply(folder, lora, task)
    with torch.no_grad():
        sum(p.view(-1)[::512].float().sum() for n in networks for p in n.parameters())
    before = reset_peak()
    started, cpu = time.perf_counter(), time.process_time()
    read = applied()
    with torch.no_grad():
        total = sum(float(t.view(-1)[::16].float().sum()) for t in read)
    if task == "undone":
        before = reset_peak()
        started, cpu = time.perf_counter(), time.process_time()
        undo()
    return {
        "s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "peak_gb": status("VmHWM") - before,
        "total": total,
    }


def _darkroom(folder: str, lora: str, task: str) -> Any:
    from darkroom.adapters.lora import Lora
    from darkroom.weights.adapters.lora import fit, fuse, networks, open_lora
    from darkroom.weights.load import load

    model = load(folder, dtype="float32", device="cpu")
    parts, kept = networks(model), []

    def live() -> list[Any]:
        layers = fit(open_lora(lora), model)
        kept.extend(Lora(parts[part], found, WEIGHT) for part, found in layers.items())
        return [p for attached in kept for p in attached.parameters()]

    def fused() -> list[Any]:
        kept.append(fuse(model, (lora, WEIGHT)))
        return [next(parts["unet"].parameters())]

    return parts.values(), live if task == "live" else fused, lambda: kept[0].close()


def _diffusers(folder: str, lora: str, task: str) -> Any:
    import diffusers
    import peft
    import torch

    assert peft.__version__  # imported before the clock starts, as all else
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    parts = (pipe.unet, pipe.text_encoder)

    def live() -> list[Any]:
        path = Path(lora)
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="one")
        pipe.set_adapters(["one"], [WEIGHT])
        return [p for n in parts for name, p in n.named_parameters() if "lora_" in name]

    def fused() -> list[Any]:
        live()
        pipe.fuse_lora()
        return [next(pipe.unet.parameters())]

    return parts, live if task == "live" else fused, pipe.unfuse_lora


def status(name: str) -> float:
    """A size of this process in GB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024 / 1e9


def reset_peak() -> float:
    """What is resident now, in GB; the peak counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--tiny", action="store_true", help="does it work?")
    parser.add_argument("--folder", type=Path, help="keeps the checkpoints (6.4 GB)")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(*arguments.run)))
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or Path(place)
        model = checkpoint.folders(folder, arguments.tiny)["fp32"]
        for dtype in ("float16", "float32"):
            lora = folder / f"lora-{'tiny' if arguments.tiny else 'sd15'}-{dtype}.safetensors"
            if not lora.exists():
                make(model, dtype, lora, arguments.rank)
            for task in ("live", "fused", "undone") if dtype == "float16" else ("live",):
                runs: dict[str, list[dict[str, float]]] = {"darkroom": [], "diffusers": []}
                for turn in range(arguments.repeats):
                    for library, done in runs.items() if turn % 2 else reversed(runs.items()):
                        command = [sys.executable, __file__, "--run", library, task]
                        command += [str(model), str(lora)]
                        output = subprocess.run(command, capture_output=True, text=True)
                        if output.returncode:
                            raise SystemExit(output.stderr)
                        done.append(json.loads(output.stdout.splitlines()[-1]))
                case = f"{task}, {dtype} file"
                results[case] = {
                    library: {key: statistics.median(r[key] for r in done) for key in done[0]}
                    for library, done in runs.items()
                }
                print(case, json.dumps(results[case]), file=sys.stderr, flush=True)
    facts = machine.describe(1)
    fields = {"machine": facts, "rank": arguments.rank, "cases": results}
    text = markdown(fields)
    print(text, *machine.write(arguments.out, f"adapters-{machine.slug(facts)}", fields, text))


def markdown(fields: dict[str, Any]) -> str:
    lines = [
        f"# A LoRA of rank {fields['rank']} for SD 1.5 beside diffusers and peft",
        "",
        machine.line(fields["machine"]),
        "",
        "Fresh processes on one thread, in turns; medians. Live: read and attached. Fused: read "
        "and written into the weights. Undone: from fused to the weights as they were (ours bit "
        "for bit). Memory: the peak above the open model, in GB. Ratios are diffusers' figure over "
        "ours, above 1 is quicker or smaller.",
        "",
        "| | | diffusers + peft | darkroom | ratio | ratio of CPU time |",
        "|---|---|---|---|---|---|",
    ]
    for case, result in fields["cases"].items():
        ours, theirs = result["darkroom"], result["diffusers"]
        wall, cpu = (theirs[key] / max(ours[key], 1e-9) for key in ("s", "cpu_s"))
        lines.append(
            f"| {case} | s | {theirs['s']:.3f} | {ours['s']:.3f} | **{wall:.2f}** | {cpu:.2f} |"
        )
        if case.startswith("undone"):
            continue  # it takes no memory
        memory = theirs["peak_gb"] / max(ours["peak_gb"], 1e-3)
        lines.append(
            f"| {case} | GB | {theirs['peak_gb']:.3f} | {ours['peak_gb']:.3f} | "
            f"**{memory:.2f}** | |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
