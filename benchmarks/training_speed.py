"""Training with Darkroom beside the same thing in diffusers and transformers, on this machine.

    python benchmarks/training_speed.py [--only mnist,emoji,clip] [--rounds 5] [--steps 8]

Jobs: the book's MNIST U-Net (10,975,329 parameters, 32x32, predicting noise), a U-Net of the size
of the built-in emoji model's (8x8x8 latents, 24 tokens), and the book's CLIP with ResNet-50 and
DistilBERT at a quarter of their widths (64x64 pixels, 24 tokens). The peers' loops are those of
diffusers' and transformers' own training examples: accelerate, AdamW, clipping, a cosine schedule,
EMAModel. They run as users run them, and once more with the C library told to keep freed memory, as
Darkroom tells it.

Both sides start from the same weights and see the same data and noise: the losses are compared.
Each run is a fresh process on one thread; runs take turns, the order alternating; the first steps
warm up. Seconds are of CPU time, which other programs on the machine disturb least.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

JOBS = {"mnist": 16, "emoji": 32, "clip": 16}  # samples a step
WARM = 3  # steps that are not counted
LR = {"mnist": 1e-3, "emoji": 1e-3, "clip": 1e-5}  # at a higher one CLIP magnifies rounding
EMA, CLIP = 0.999, 1.0


# --- what both see


def data(job: str, step: int) -> dict[str, Tensor]:
    """The batch of a step."""
    g, b = torch.Generator().manual_seed(1000 + step), JOBS[job]
    t = torch.randint(0, 1000, (b,), generator=g)
    if job == "clip":
        ids = torch.randint(5, 1000, (b, 24), generator=g)
        return {"pixels": torch.rand(b, 3, 64, 64, generator=g), "ids": ids}
    shape = (b, 1, 32, 32) if job == "mnist" else (b, 8, 8, 8)
    clean, noise = torch.randn(shape, generator=g), torch.randn(shape, generator=g)
    found = {"clean": clean, "noise": noise, "t": t}
    return found if job == "mnist" else found | {"text": torch.randn(b, 24, 192, generator=g)}


def network(job: str) -> nn.Module:
    """Ours, with weights that any process draws alike."""
    torch.manual_seed(0)
    if job == "mnist":
        from darkroom.models.unconditional_unet import MNIST, UnconditionalUNet

        return UnconditionalUNet(MNIST)
    if job == "emoji":
        from darkroom.models.unet import UNet, UNetConfig

        return UNet(
            UNetConfig(
                in_channels=8, out_channels=8, channels=(96, 192), heads=(3, 6), depth=(1, 1),
                middle_depth=1, blocks=1, text_channels=192,
            )
        )  # fmt: skip
    from darkroom.models.distilbert import DistilBertConfig
    from darkroom.models.dual_encoder import DualEncoder, DualEncoderConfig
    from darkroom.models.resnet import RESNET50

    image = replace(RESNET50, channels=16)
    text = DistilBertConfig(
        vocabulary=1000,
        positions=64,
        channels=192,
        layers=6,
        heads=6,
        hidden=768,
        dropout=0.0,
        attention_dropout=0.0,
    )
    return DualEncoder(DualEncoderConfig(image=image, text=text, projection=128, dropout=0.0))


def contrast(image: Tensor, text: Tensor) -> Tensor:
    """The book's symmetric loss with soft targets, at temperature 1."""
    logits = text @ image.T
    targets = ((image @ image.T + text @ text.T) / 2).softmax(-1)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


# --- ours


def ours(job: str, steps: int) -> Iterator[float]:
    """Losses, step by step, as ``darkroom train`` would run it."""
    from darkroom.acceleration import keep_freed_memory
    from darkroom.diffusion.prediction import PREDICTIONS
    from darkroom.diffusion.schedule import NoiseSchedule
    from darkroom.training.fit import Draw, FitOptions, Training, fit

    keep_freed_memory()
    options = FitOptions(
        steps=steps, batch=JOBS[job], lr=LR[job], warmup=0, betas=(0.9, 0.999), clip=CLIP, ema=EMA,
        device="cpu",
    )  # fmt: skip
    model = network(job)
    training = Training(model, options)
    prediction, sigmas = PREDICTIONS["noise"](), torch.tensor(NoiseSchedule.linear().sigmas)

    def loss(draw: Draw) -> Tensor:
        one = data(job, draw.step)
        if job == "clip":
            return contrast(model.encode_image(one["pixels"]), model.encode_text(one["ids"]))
        sigma = sigmas[one["t"]][:, None, None, None]
        x = prediction.network_input(one["clean"] + sigma * one["noise"], sigma)
        output = model(x, one["t"]) if job == "mnist" else model(x, one["t"], one["text"])
        return F.mse_loss(output, one["noise"])

    for step in fit(training, loss):
        yield step.loss


# --- theirs


def theirs(job: str, steps: int) -> Iterator[float]:
    """Losses of the loop that diffusers' and transformers' training examples write."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    accelerator = Accelerator(cpu=True)
    model, forward = peer(job)
    model.train()
    ema = EMAModel(model.parameters(), decay=EMA, use_ema_warmup=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR[job], weight_decay=1e-2)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=steps)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    noises = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    for step in range(steps):
        one = data(job, step)
        with accelerator.accumulate(model):
            if job == "clip":
                value = contrast(*forward(one["pixels"], one["ids"]))
            else:
                x = noises.add_noise(one["clean"], one["noise"], one["t"])
                rest = (one["text"],) if job == "emoji" else ()
                value = F.mse_loss(forward(x, one["t"], *rest), one["noise"])
            accelerator.backward(value)
            accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        ema.step(model.parameters())
        yield value.detach().item()


def peer(job: str) -> tuple[nn.Module, Callable[..., Any]]:
    """The peer's network with our weights, and how it is called."""
    import tempfile

    from darkroom.weights.save import save

    with tempfile.TemporaryDirectory() as folder:
        if job == "mnist":
            from diffusers import UNet2DModel

            save(network(job), folder)
            model = UNet2DModel.from_pretrained(folder)
            return model, lambda x, t: model(x, t).sample
        if job == "emoji":
            from diffusers import UNet2DConditionModel

            save(network(job).eval().requires_grad_(False), folder)
            model = UNet2DConditionModel.from_pretrained(folder)
            return model, lambda x, t, text: model(x, t, text).sample
    return peer_of_clip()


def peer_of_clip() -> tuple[nn.Module, Callable[..., Any]]:
    """transformers' ResNet and DistilBERT under projections of the same form."""
    from transformers import DistilBertConfig, DistilBertModel, ResNetConfig, ResNetModel

    from darkroom.weights.layout import revert
    from darkroom.weights.layouts.distilbert import TRANSFORMERS

    mine = network("clip")
    c = mine.config
    image = ResNetModel(
        ResNetConfig(
            embedding_size=c.image.channels, hidden_sizes=list(c.image.widths[1:]),
            depths=list(c.image.blocks), layer_type="bottleneck",
            downsample_in_bottleneck=False,
        )
    )  # fmt: skip
    text = DistilBertModel(
        DistilBertConfig(
            vocab_size=1000, max_position_embeddings=64, dim=192, n_layers=6, n_heads=6,
            hidden_dim=768, dropout=0.0, attention_dropout=0.0,
        )
    )  # fmt: skip
    state = mine.image.state_dict()
    image.load_state_dict({name: state[ours_name(name)] for name in image.state_dict()})
    text.load_state_dict(revert(mine.text.state_dict(), TRANSFORMERS.entries(c.text)))
    heads = nn.ModuleList([mine.image_projection, mine.text_projection])
    both = nn.ModuleList([image, text, heads])

    def forward(pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        features = image(pixels).pooler_output.flatten(1)
        return heads[0](features), heads[1](text(ids).last_hidden_state[:, 0])

    return both, forward


def ours_name(name: str) -> str:
    """Our name of a tensor of transformers' ResNet."""
    for theirs_, ours_ in {
        "embedder.embedder.convolution": "input", "embedder.embedder.normalization": "norm",
        "encoder.stages.": "stage.", ".layers.": ".",
        "layer.0.convolution": "conv1", "layer.0.normalization": "norm1",
        "layer.1.convolution": "conv2", "layer.1.normalization": "norm2",
        "layer.2.convolution": "conv3", "layer.2.normalization": "norm3",
        "shortcut.convolution": "skip.0", "shortcut.normalization": "skip.1",
    }.items():  # fmt: skip
        name = name.replace(theirs_, ours_)
    return name


# --- measuring


def theirs_kept(job: str, steps: int) -> Iterator[float]:
    """The same with freed memory kept."""
    from darkroom.acceleration import keep_freed_memory

    keep_freed_memory()
    yield from theirs(job, steps)


KEPT = "peer, memory kept"
CONTENDERS = {"darkroom": ours, "peer": theirs, KEPT: theirs_kept}


def one_run(name: str, job: str, steps: int) -> dict[str, Any]:
    """In this process: losses, seconds a step after the warm-up, and the most memory."""
    import resource

    torch.set_num_threads(1)
    losses, marks = [], []
    for loss in CONTENDERS[name](job, WARM + steps):
        losses.append(loss)
        marks.append((time.process_time(), time.perf_counter()))
    (cpu, wall), (cpu_end, wall_end) = marks[WARM - 1], marks[-1]
    return {
        "losses": losses,
        "cpu": (cpu_end - cpu) / steps,
        "wall": (wall_end - wall) / steps,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(
    only: str = ",".join(JOBS),
    rounds: int = 5,
    steps: int = 8,
    one: str | None = typer.Option(None, hidden=True),
    out: Path = machine.RESULTS,
) -> None:
    """Measure, print a table and write it to results/."""
    if one:
        name, job = one.split(":")
        print(json.dumps(one_run(name, job, steps)))
        return
    facts = machine.describe(1) | {"instructions": torch.backends.cpu.get_cpu_capability()}
    fields: dict[str, Any] = {"machine": facts, "jobs": {}}
    for job in only.split(","):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for turn in range(rounds):
            for name in list(CONTENDERS)[:: 1 if turn % 2 else -1]:
                command = [
                    sys.executable,
                    __file__,
                    "--one",
                    f"{name}:{job}",
                    "--steps",
                    str(steps),
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{name} {job} failed:\n{done.stderr[-3000:]}")
                runs[name].append(json.loads(done.stdout.splitlines()[-1]))
        fields["jobs"][job] = summary(runs, JOBS[job])
        print(job, json.dumps(fields["jobs"][job]), file=sys.stderr, flush=True)
    name = f"training-{facts['instructions'].lower()}-{machine.slug(facts)}"
    paths = machine.write(out, name, fields, markdown(fields))
    print(markdown(fields), *map(str, paths), sep="\n")


def summary(runs: dict[str, list[dict[str, Any]]], batch: int) -> dict[str, Any]:
    """Medians, ratios (above 1: Darkroom is quicker, smaller), and how far the losses differ."""
    found: dict[str, Any] = {}
    for name, several in runs.items():
        found[name] = {
            "samples_per_cpu_second": batch / statistics.median(run["cpu"] for run in several),
            "seconds": statistics.median(run["cpu"] for run in several),
            "least": min(run["cpu"] for run in several),
            "most": max(run["cpu"] for run in several),
            "peak_mb": statistics.median(run["peak_mb"] for run in several),
        }
    pairs = list(zip(runs["darkroom"][0]["losses"], runs["peer"][0]["losses"], strict=True))
    found["ratio"] = found["peer"]["seconds"] / found["darkroom"]["seconds"]
    found["kept_ratio"] = found[KEPT]["seconds"] / found["darkroom"]["seconds"]
    found["memory_ratio"] = found["peer"]["peak_mb"] / found["darkroom"]["peak_mb"]
    found["first_losses"] = pairs[0]
    found["loss_difference"] = max(abs(a - b) / b for a, b in pairs[:4])
    found["rounds"] = len(runs["peer"])
    return found


def markdown(fields: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# Training beside diffusers and transformers",
        "",
        machine.line(fields["machine"]) + f" Instructions: {fields['machine']['instructions']}.",
        "",
        "One thread; fresh processes in turns; medians (least to most) of CPU seconds a step after "
        f"{WARM} steps. The peer's loop is that of its own training example (accelerate, AdamW, "
        "clipping, cosine, EMA), from the same weights on the same data. Ratios: the peer's time "
        "over Darkroom's; with memory kept: of the peer with the C library told to keep freed "
        "memory, as Darkroom tells it. The last column is the largest relative difference of the "
        "first four losses.",
        "",
        "| job | batch | Darkroom, s | peer, s | samples/s | ratio | with memory kept | memory, MB "
        "| ratio | losses |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for job, row in fields["jobs"].items():
        a, b = row["darkroom"], row["peer"]
        lines.append(
            f"| {job} | {JOBS[job]} | {a['seconds']:.3f} ({a['least']:.3f} to {a['most']:.3f}) | "
            f"{b['seconds']:.3f} ({b['least']:.3f} to {b['most']:.3f}) | "
            f"{a['samples_per_cpu_second']:.1f} against {b['samples_per_cpu_second']:.1f} | "
            f"**{row['ratio']:.2f}** | **{row['kept_ratio']:.2f}** | "
            f"{a['peak_mb']:.0f} against {b['peak_mb']:.0f} | "
            f"**{row['memory_ratio']:.2f}** | {row['loss_difference']:.1e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
