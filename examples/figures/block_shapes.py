"""What goes into and comes out of the blocks of a diffusion U-Net (figures 16.20 to 16.35).

python examples/figures/block_shapes.py --model sd2 --batch 2

The model is an architecture (sd15, sd2, sdxl, ...) or a checkpoint; no weight is read.
"""

from pathlib import Path

import typer

from darkroom.weights.inspect.layers import networks_called, networks_of


def main(model: str = "sd2", out: Path = Path("pictures"), batch: int = 2) -> None:
    out.mkdir(parents=True, exist_ok=True)
    networks = networks_called(model, batch=batch) or networks_of(Path(model), batch=batch)
    unet = next(network for network in networks if "unet" in type(network.model).__name__.lower())
    found = unet.trace()
    blocks = {block.kind: block for block in reversed(found.blocks)}  # the first one of each kind
    details = [
        "\n".join(
            str(inner)
            for inner in found
            if inner.name.startswith(blocks[kind].name)
            and inner.depth <= blocks[kind].depth + 1
            and inner.calls
        )
        for kind in ("ResidualBlock", "TransformerBlock")
        if kind in blocks
    ]
    text = "\n\n".join((f"{model}, batch {batch}", found.table(2), *details))
    print(text)
    (out / "block_shapes.txt").write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
