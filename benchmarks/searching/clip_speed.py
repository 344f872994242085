"""Pictures and texts per second through CLIP: Darkroom beside transformers and open_clip, in turns.

    python benchmarks/searching/clip_speed.py [--repeats 5] [--batch 32] [--threads 1] [--dry]

The same random weights in all three, float32, on one batch of random pictures and one of sentences,
in one process and in turns; the best of each is compared, and the median given. Darkroom runs
as its commands do, accelerated by ``recommended``; "plain" is without. transformers pads sentences
to the longest of the batch, open_clip to 77 tokens, as they do by themselves. The largest
difference between unit vectors is told. open_clip is measured where it can be imported; it imports
torchvision, of which its networks use nothing: where that is absent, an empty stand-in takes its
place.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.acceleration import accelerate, recommended
from darkroom.models.clip.network import Clip, ClipConfig
from darkroom.models.clip.presets import OPENAI
from darkroom.models.clip.vision_transformer import VisionConfig
from darkroom.text.tokenizer import Tokenizer
from darkroom.vision.encoder import Encoder
from darkroom.weights.layouts.clip.configs import clip_json
from darkroom.weights.layouts.clip.names import HUGGINGFACE, OPENAI_LAYOUT

sys.path.insert(0, str(Path(__file__).parents[1]))
import machine

SENTENCES = (
    "a photo of a dog",
    "two people ride bicycles along a river in the evening",
    "the front page of a newspaper",
    "a red car is parked under a tree, beside a white fence and an open gate",
)
Run = Callable[[], Tensor]


def darkroom(model: Clip, texts: list[str], pixels: Tensor) -> dict[str, Run]:
    """Tensors to unit vectors, and sentences to unit vectors, tokenizer included."""
    encoder = Encoder(model, Tokenizer.built_in(), model.config.view.size)
    return {
        "pictures": lambda: F.normalize(model.image(pixels), dim=-1),
        "texts": lambda: encoder.texts(texts),
    }


def transformers(model: Clip, texts: list[str], pixels: Tensor, folder: str) -> dict[str, Run]:
    """CLIPModel and its tokenizer, of the same weights."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    Tokenizer.built_in().save(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    theirs = CLIPModel(CLIPConfig.from_dict(clip_json(model.config))).eval()
    theirs.load_state_dict(HUGGINGFACE.revert(model.state_dict(), model.config))

    def words() -> Tensor:
        ids = tokenizer(texts, padding=True, return_tensors="pt")
        return F.normalize(_vectors(theirs.get_text_features(**ids)), dim=-1)

    def pictures() -> Tensor:
        return F.normalize(_vectors(theirs.get_image_features(pixel_values=pixels)), dim=-1)

    return {"pictures": pictures, "texts": words}


def _vectors(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def open_clip(model: Clip, texts: list[str], pixels: Tensor) -> dict[str, Run]:
    """open_clip's CLIP and tokenizer, of the same weights."""
    if importlib.util.find_spec("torchvision") is None:
        _stand_in("torchvision", ("transforms", "transforms.functional", "ops", "ops.misc"))
    from open_clip.model import CLIP  # pyright: ignore[reportMissingImports]
    from open_clip.tokenizer import SimpleTokenizer  # pyright: ignore[reportMissingImports]

    config = model.config
    image, words = config.image, config.text
    vision: dict[str, Any] = {"image_size": image.size, "width": image.channels}
    if isinstance(image, VisionConfig):
        vision |= {
            "layers": image.layers,
            "head_width": image.channels // image.heads,
            "mlp_ratio": image.hidden / image.channels,
            "patch_size": image.patch,
        }
    else:
        vision |= {
            "layers": image.blocks,
            "head_width": image.features // image.heads,
        }
    theirs = CLIP(
        embed_dim=words.projection,
        quick_gelu=words.quick_gelu,
        vision_cfg=vision,
        text_cfg={
            "context_length": words.positions,
            "vocab_size": words.vocabulary,
            "width": words.channels,
            "heads": words.heads,
            "layers": words.layers,
        },
    ).eval()
    theirs.load_state_dict(OPENAI_LAYOUT.revert(model.state_dict(), config), strict=False)
    tokenizer = SimpleTokenizer()
    return {
        "pictures": lambda: theirs.encode_image(pixels, normalize=True),
        "texts": lambda: theirs.encode_text(tokenizer(texts), normalize=True),
    }


def _stand_in(name: str, parts: tuple[str, ...]) -> None:
    """Modules whose every name can be imported, and subclassed, and does nothing."""
    for full in (name, *(f"{name}.{part}" for part in parts)):
        module: Any = ModuleType(full)
        module.__spec__ = importlib.util.spec_from_loader(full, loader=None)
        module.__path__ = []
        module.__getattr__ = lambda wanted: type(wanted, (nn.Module,), {})
        sys.modules[full] = module
        parent, _, leaf = full.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
    sys.modules[f"{name}.transforms"].InterpolationMode = MagicMock()  # pyright: ignore[reportAttributeAccessIssue]


def measure(ways: dict[str, Run], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and seconds of the processor of each run, in turns whose order turns round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # finds its kernels
    for turn in range(repeats):
        order = list(ways) if turn % 2 else list(reversed(ways))
        for name in order:
            started, cpu = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name].append((time.perf_counter() - started, time.process_time() - cpu))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--model", default="ViT-B/32", choices=[n for n in OPENAI if "ViT" in n])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    facts = machine.describe(arguments.threads)
    cases = compare(OPENAI[arguments.model], arguments.batch, arguments.repeats)
    fields = {
        "machine": facts,
        "model": arguments.model,
        "batch": arguments.batch,
        "open_clip": _version("open_clip_torch"),
        "torchvision": _version("torchvision"),
        "cases": cases,
    }
    text = markdown(fields)
    print(text)
    if not arguments.dry:
        print(*machine.write(machine.RESULTS, f"clip-{machine.slug(facts)}", fields, text))


def _version(package: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "absent"


@torch.inference_mode()
def compare(config: ClipConfig, batch: int, repeats: int) -> dict[str, Any]:
    """For pictures and for texts: each library's seconds, and how far its vectors are from ours."""
    import tempfile

    model = Clip(config).eval().requires_grad_(False)
    quick = Clip(config).eval().requires_grad_(False)
    quick.load_state_dict(model.state_dict())
    pixels = torch.randn(batch, 3, config.view.size, config.view.size)
    texts = [SENTENCES[n % len(SENTENCES)] for n in range(batch)]
    with tempfile.TemporaryDirectory() as folder, accelerate(quick, recommended(quick)):
        libraries = {
            "darkroom": darkroom(quick, texts, pixels),
            "darkroom, plain": darkroom(model, texts, pixels),
            "transformers": transformers(model, texts, pixels, folder),
        }
        if importlib.util.find_spec("open_clip") is not None:
            libraries["open_clip"] = open_clip(model, texts, pixels)
        cases = {}
        for case in ("pictures", "texts"):
            ways = {name: runs[case] for name, runs in libraries.items()}
            ours = ways["darkroom, plain"]()
            apart = {name: float((way() - ours).abs().max()) for name, way in ways.items()}
            cases[case] = {
                name: {
                    "per_s": batch / min(wall for wall, _ in seconds),
                    "median_per_s": batch / statistics.median(wall for wall, _ in seconds),
                    "per_cpu_s": batch / min(cpu for _, cpu in seconds),
                    "apart": apart[name],
                }
                for name, seconds in measure(ways, repeats).items()
            }
            print(case, json.dumps(cases[case]), file=sys.stderr, flush=True)
    return cases


def markdown(fields: dict[str, Any]) -> str:
    """A table of throughputs and ratios."""
    stand_in = fields["torchvision"] == "absent"
    note = "; torchvision, which it imports, is an empty stand-in" if stand_in else ""
    lines = [
        f"# CLIP {fields['model']} in batches of {fields['batch']}, beside its peers",
        "",
        machine.line(fields["machine"]),
        "",
        f"One process, the same random weights, float32, in turns. open_clip {fields['open_clip']}"
        f"{note}. Best (median) per second; the ratio is ours over theirs by the best, above 1 is "
        "quicker. Apart: the largest difference of a unit vector's numbers from our plain ones.",
        "",
        "| | library | per second | ratio | ratio of CPU time | apart |",
        "|---|---|---|---|---|---|",
    ]
    for case, libraries in fields["cases"].items():
        ours = libraries["darkroom"]
        for name, row in libraries.items():
            wall, cpu = (ours[key] / row[key] for key in ("per_s", "per_cpu_s"))
            ratios = "| | |" if row is ours else f"| **{wall:.2f}** | {cpu:.2f} |"
            lines.append(
                f"| {case} | {name} | {row['per_s']:.1f} ({row['median_per_s']:.1f}) {ratios} "
                f"{row['apart']:.0e} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
