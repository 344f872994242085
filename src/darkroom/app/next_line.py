"""What to type with a model of each kind, once it has a name. No torch."""

from pathlib import Path

LINES = {  # the kind that ``inspect`` tells -> a command
    "checkpoint": 'darkroom generate "..." --model {name}',
    "LoRA": 'darkroom generate "..." --lora {name}:0.8',
    "textual inversion": 'darkroom generate "... {name}" --embedding {name}',
    "hypernetwork": 'darkroom generate "..." --hypernetwork {name}:1',
    "CLIP": 'darkroom classify PHOTO --labels "a dog,a cat" --model {name}',
    "dual encoder": 'darkroom classify PHOTO --labels "a dog,a cat" --model {name}',
    "SAM": "darkroom segment PHOTO --everything --model {name}",
    "FastSAM": "darkroom segment PHOTO --everything --model {name}",
    "depth estimator": 'darkroom control PHOTO "..." --kind depth --annotator {name} --net NET '
    "--model MODEL",
}
VARIANTS = {  # of checkpoints, by what ``inspect`` calls them
    "inpainting": 'darkroom edit PHOTO "..." --mask MASK --model {name}',
    "depth to image": 'darkroom control PHOTO "..." --kind depth --model {name}',
    "instruct: edits by instruction": 'darkroom generate "..." --image PHOTO --model {name}',
}
BESIDE = " --model MODEL (of {base})"
ADAPTERS = ("LoRA", "textual inversion", "hypernetwork")
NETS = ("ControlNet", "Control-LoRA", "T2I-adapter")
ANNOTATORS = {
    "annotator: soft edges": "hed",
    "annotator: lines": "mlsd",
    "annotator: segments": "seg",
    "annotator: body pose": "openpose",
}


def next_line(kind: str, base: str, variant: str, name: str) -> str:
    """One command that uses the model; ``kind``, ``base``, ``variant`` are as ``inspect`` says."""
    if any(mark in name for mark in " '\"$&;|()<>*?"):
        name = f"'{name}'" if "'" not in name else f'"{name}"'
    if kind.startswith(NETS):
        line = 'darkroom control PHOTO "..." --kind canny --net {name}'
    elif kind in ANNOTATORS:
        line = f'darkroom control PHOTO "..." --kind {ANNOTATORS[kind]} --annotator {{name}}'
        line += " --net NET --model MODEL"
    elif "refiner" in base:
        line = 'darkroom generate "..." --model sdxl --refiner {name}'
    elif kind == "checkpoint":
        line = VARIANTS.get(variant, LINES["checkpoint"])
    else:
        line = LINES.get(kind, "darkroom inspect {name}")
    if kind in ADAPTERS or kind.startswith(NETS):
        line += BESIDE.format(base=base) if base else " --model MODEL"
    return line.replace("{name}", name)


def line_of(path: Path, name: str) -> tuple[str, str, str]:
    """(kind, base, the command) of a file or folder, by its header.

    Raises:
        CheckpointError: it cannot be read.
    """
    from darkroom.weights.inspect import inspect

    report = inspect(path)
    return report.kind, report.base, next_line(report.kind, report.base, report.variant, name)
