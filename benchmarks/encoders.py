"""Networks that see, beside their best peers: SAM's image encoder, CLIP's towers, DPT.

    python benchmarks/encoders.py [--only JOB ...] [--rounds 5] [--threads 2] [--out NAME]

The same random weights in each, float32, the same input. Darkroom's are opened by the doors that a
user has; "plain" is the same with ``DARKROOM_ACCELERATE=0``. Peers run as they are, and again with
the allocator setting that opening a model here makes ("kept": freed memory stays with the
process). Each contender has a process of its own, and they take turns, the order turning round;
medians count. Peers: transformers, and where they can be imported segment_anything and open_clip;
torchvision, of which the networks use nothing, is an empty stand-in where it is absent.

As a processor without AVX-512 sees it: ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
MKL_ENABLE_INSTRUCTIONS=AVX2 before the command.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "searching"), str(HERE / "segmenting")]

import machine  # noqa: E402

DARKROOM, PLAIN, KEPT = "darkroom", "darkroom, plain", ", kept"
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Job:
    """What is run: by each contender its own function from a batch to what it does."""

    name: str
    contenders: Mapping[str, Callable[[Path], Call]]


def seeded(model: nn.Module) -> Any:
    """The model with weights that are all drawn, and the same in every process."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


def pixels(batch: int, side: int) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


# --- segment-anything


def sam(size: str) -> Job:
    from darkroom.models.sam import config as configs
    from darkroom.models.sam.network import Sam
    from darkroom.weights.layouts.sam.original import ORIGINAL

    config = {"b": configs.SAM_B, "l": configs.SAM_L, "h": configs.SAM_H}[size]

    def drawn() -> Sam:
        torch.manual_seed(0)
        return seeded(Sam(config))

    def ours(folder: Path) -> Call:
        from darkroom.vision.segment import open_segmenter

        file = folder / f"sam_vit_{size}.pth"
        torch.save(ORIGINAL.revert(drawn().state_dict(), config), file)
        encoder, x = open_segmenter(file).model.image_encoder, pixels(1, config.size)
        return lambda: encoder(x)

    def transformers(_: Path) -> Call:
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionEncoder

        from darkroom.weights.layouts.sam.huggingface import HUGGINGFACE, VISION

        vit = config.encoder
        fields: Any = {
            "hidden_size": vit.channels, "num_hidden_layers": vit.layers,
            "num_attention_heads": vit.heads, "mlp_dim": vit.hidden,
            "global_attn_indexes": list(vit.global_layers), "attn_implementation": "sdpa",
        }  # fmt: skip
        model = SamVisionEncoder(SamVisionConfig(**fields)).eval().requires_grad_(False)
        state = HUGGINGFACE.revert(drawn().state_dict(), config)
        start = f"{VISION}."
        model.load_state_dict(
            {k.removeprefix(start): t for k, t in state.items() if k.startswith(start)}
        )
        x = pixels(1, config.size)
        return lambda: model(x).last_hidden_state

    def segment_anything(_: Path) -> Call:
        from automatic_masks_speed import stand_in

        stand_in()
        from segment_anything import (  # pyright: ignore[reportMissingImports]
            sam_model_registry,
        )

        model = sam_model_registry[f"vit_{size}"]().eval().requires_grad_(False)
        model.load_state_dict(ORIGINAL.revert(drawn().state_dict(), config))
        x = pixels(1, config.size)
        return lambda: model.image_encoder(x)

    peers = {"transformers": transformers}
    if importlib.util.find_spec("segment_anything"):
        peers["segment-anything"] = segment_anything
    return Job(f"SAM ViT-{size.upper()} encoder", {DARKROOM: ours, **peers})


# --- DPT


def dpt(kind: str) -> Job:
    from darkroom.models.dpt.network import DPT, DPT_HYBRID, DPT_LARGE

    config = {"large": DPT_LARGE, "hybrid": DPT_HYBRID}[kind]

    def saved(folder: Path) -> Path:
        from darkroom.weights.save import save

        torch.manual_seed(0)
        return save(seeded(DPT(config)), folder / "dpt")

    def ours(folder: Path) -> Call:
        import darkroom as dr

        model, x = dr.load(saved(folder)), pixels(1, 384)
        return lambda: model(x)

    def transformers(folder: Path) -> Call:
        from transformers import DPTForDepthEstimation

        model = DPTForDepthEstimation.from_pretrained(saved(folder), local_files_only=True).eval()
        x = pixels(1, 384)
        return lambda: model(x).predicted_depth

    return Job(f"DPT-{kind}, 384x384", {DARKROOM: ours, "transformers": transformers})


# --- CLIP


def clip(preset: str, batch: int, what: str) -> Job:
    import clip_speed

    from darkroom.models.clip.network import Clip
    from darkroom.models.clip.presets import OPENAI
    from darkroom.models.clip.vision_transformer import VisionConfig

    config = OPENAI[preset]
    texts = [clip_speed.SENTENCES[n % len(clip_speed.SENTENCES)] for n in range(batch)]

    def drawn() -> Clip:
        torch.manual_seed(0)
        return seeded(Clip(config))

    def ours(folder: Path) -> Call:
        from darkroom.text.tokenizer import Tokenizer
        from darkroom.vision.encoder import Encoder, open_encoder

        model = drawn()
        path = Encoder(model, Tokenizer.built_in(), config.view.size).save(folder / "clip")
        opened, x = open_encoder(path), pixels(batch, config.view.size)
        if what == "texts":
            return lambda: opened.texts(texts)
        assert isinstance(opened.model, Clip)
        tower = opened.model.image
        return lambda: nn.functional.normalize(tower(x), dim=-1)

    def peer(make: Callable[..., dict[str, Call]]) -> Callable[[Path], Call]:
        def made(folder: Path) -> Call:
            x = pixels(batch, config.view.size)
            given = (str(folder),) if make is clip_speed.transformers else ()
            return make(drawn(), texts, x, *given)[what]

        return made

    peers: dict[str, Callable[[Path], Call]] = {}
    if isinstance(config.image, VisionConfig):
        peers["transformers"] = peer(clip_speed.transformers)
    if importlib.util.find_spec("open_clip"):
        peers["open_clip"] = peer(clip_speed.open_clip)
    return Job(f"CLIP {preset}, {what}, batch {batch}", {DARKROOM: ours, **peers})


JOBS: Mapping[str, Callable[[], Job]] = {
    "sam_vit_b": lambda: sam("b"),
    "sam_vit_l": lambda: sam("l"),
    "sam_vit_h": lambda: sam("h"),
    "dpt_large": lambda: dpt("large"),
    "dpt_hybrid": lambda: dpt("hybrid"),
    "clip_b32_1": lambda: clip("ViT-B/32", 1, "pictures"),
    "clip_b32_8": lambda: clip("ViT-B/32", 8, "pictures"),
    "clip_b32_32": lambda: clip("ViT-B/32", 32, "pictures"),
    "clip_l14_4": lambda: clip("ViT-L/14", 4, "pictures"),
    "clip_rn50_8": lambda: clip("RN50", 8, "pictures"),
    "clip_b32_texts": lambda: clip("ViT-B/32", 32, "texts"),
    "clip_l14_texts": lambda: clip("ViT-L/14", 8, "texts"),
}
USUAL = [name for name in JOBS if name not in ("sam_vit_l", "sam_vit_h")]


# --- turns


def work(pipe: Any, job: str, contender: str, threads: int) -> None:
    """A process: prepare one contender, then run it whenever it is told to."""
    torch.set_num_threads(threads)
    name = contender.removesuffix(KEPT)
    if contender == PLAIN:
        os.environ["DARKROOM_ACCELERATE"] = "0"
        name = DARKROOM
    elif contender.endswith(KEPT):
        from darkroom.acceleration import keep_freed_memory

        keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        call = JOBS[job]().contenders[name](Path(folder))
    with torch.inference_mode():
        pipe.send(call().numpy())  # finds its kernels, and measures
        while pipe.recv():
            began, cpu = time.perf_counter(), time.process_time()
            call()
            pipe.send((time.perf_counter() - began, time.process_time() - cpu, peak()))


def peak() -> float:
    """Megabytes this process has held at most."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure(job: str, rounds: int, threads: int, crews: int = 1) -> dict[str, Any]:
    """Of each contender: median seconds, of wall and of processors, memory, distance from ours.

    A process keeps the memory pages that it happens to get, and is up to a tenth faster or slower
    than the next one that does the same: several crews of processes even that out.
    """
    peers = [name for name in JOBS[job]().contenders if name != DARKROOM]
    names = [DARKROOM, PLAIN, *peers, *(peer + KEPT for peer in peers)]
    answers: dict[str, Tensor] = {}
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for _ in range(crews):
        crew(job, names, rounds, threads, answers, runs)
    ours = answers[PLAIN]
    return {
        name: {
            "seconds": [wall for wall, _, _ in spent],
            "median": statistics.median(wall for wall, _, _ in spent),
            "cpu": statistics.median(cpu for _, cpu, _ in spent),
            "peak_mb": spent[-1][2],
            "apart": float((answers[name] - ours).abs().max()),
        }
        for name, spent in runs.items()
    }


def crew(
    job: str,
    names: list[str],
    rounds: int,
    threads: int,
    answers: dict[str, Tensor],
    runs: dict[str, list[tuple[float, float, float]]],
) -> None:
    """A process for each contender; they take turns, and what they say is added."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    processes = []
    try:
        for name in names:
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, job, name, threads), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            answers[name] = torch.from_numpy(pipes[name].recv())
        for turn in range(rounds):
            for name in names if turn % 2 else names[::-1]:
                pipes[name].send(True)
                runs[name].append(pipes[name].recv())
    finally:
        for process in processes:
            process.terminate()
            process.join()


def markdown(fields: dict[str, Any]) -> str:
    """A table of medians and ratios."""
    lines = [
        "# Encoders beside their peers",
        "",
        machine.line(fields["machine"]),
        "",
        f"Instructions that PyTorch uses: {fields['instructions']}; set: "
        f"{json.dumps(fields['environment'])}. Medians of {fields['rounds']} runs in turns by each "
        f"of {fields['crews']} crews of processes, one for each contender. Ratios: theirs over "
        "ours, above 1 we are quicker. "
        "Kept: with the C library keeping freed memory, as Darkroom has it. Apart: the largest "
        "difference of a number of the output from our plain one.",
        "",
        "| | contender | seconds | ratio | ratio of CPU time | peak MB | apart |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for job, rows in fields["jobs"].items():
        ours = rows[DARKROOM]
        for name, row in rows.items():
            wall, cpu = (row[key] / ours[key] for key in ("median", "cpu"))
            ratios = "| | |" if row is ours else f"| **{wall:.2f}** | {cpu:.2f} |"
            lines.append(
                f"| {job} | {name} | {row['median']:.3f} ({min(row['seconds']):.3f}-"
                f"{max(row['seconds']):.3f}) {ratios} {row['peak_mb']:,.0f} | {row['apart']:.0e} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=USUAL, metavar="JOB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crews", type=int, default=1, help="of new processes, one by one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="writes benchmarks/results/<date>-NAME.*")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    settings = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    fields: dict[str, Any] = {
        "machine": machine.describe(asked.threads),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "environment": {name: os.environ[name] for name in settings if name in os.environ},
        "rounds": asked.rounds,
        "crews": asked.crews,
        "jobs": {},
    }
    for job in asked.only:
        name = JOBS[job]().name
        fields["jobs"][name] = measure(job, asked.rounds, asked.threads, asked.crews)
        print(name, json.dumps(fields["jobs"][name]), file=sys.stderr, flush=True)
    text = markdown(fields)
    print(text)
    if asked.out:
        print(*machine.write(machine.RESULTS, asked.out, fields, text))


if __name__ == "__main__":
    main()
