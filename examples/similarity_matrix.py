"""Eight of scikit-image's pictures against eight descriptions, as the book prints them (2.3.4).

The built-in model has only seen emoji: photographs are hard for it. With a public CLIP the diagonal
stands out.

python examples/similarity_matrix.py --model ViT-B-32.pt
"""

from pathlib import Path

import skimage.data
import torch
import typer

import darkroom as dr
from darkroom.images import open_image
from darkroom.names import ENCODER_MODEL
from darkroom.vision.plots import heat_map

DESCRIPTIONS = {
    "page.png": "a page of text about segmentation",
    "chelsea.png": "a facial photo of a tabby cat",
    "astronaut.png": "a portrait of an astronaut with the American flag",
    "rocket.jpg": "a rocket standing on a launchpad",
    "motorcycle_right.png": "a red motorcycle standing in a garage",
    "camera.png": "a person looking at a camera on a tripod",
    "horse.png": "a black-and-white silhouette of a horse",
    "coffee.png": "a cup of coffee on a saucer",
}


def main(model: str = ENCODER_MODEL, out: Path = Path("pictures")) -> None:
    encoder = dr.open_encoder(model)
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(skimage.data.__file__).parent
    texts = [f"This is {text}" for text in DESCRIPTIONS.values()]
    images = [folder / name for name in DESCRIPTIONS]
    found = encoder.similarity(images, texts)  # (pictures, texts)
    best = found.argmax(0)
    for j, text in enumerate(DESCRIPTIONS.values()):
        print(f"{text:52} {found[j, j]:.3f}  nearest: {images[best[j]].name}")
    right = (best == torch.arange(len(best))).sum()
    print(f"{right} of {len(best)} descriptions are nearest to their own picture")
    shown = heat_map(
        found.T.tolist(),
        list(DESCRIPTIONS.values()),
        pictures=[open_image(image) for image in images],
        title=f"cosine similarity of texts and pictures, by {Path(model).name}",
    )
    shown.save(out / "similarity_matrix.png")


if __name__ == "__main__":
    typer.run(main)
