"""Make sam_automatic.json: what segment-anything's generator finds in a small picture.

Run as sam_originals.py, which has the network, the picture and the weights; a few of these are
changed so that random masks have shapes: the decoder enlarges smoothly, positions are told by low
frequencies, and tokens are quieter than what they are added to.
    PYTHONPATH=segment-anything:MobileSAM:tests python -m vectors.sam_automatic FILE.json
"""

import json
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vectors.sam_originals import picture, random_state, small

SEED = 15
SIZE = (90, 120)  # height and width
COMMON = {"points_per_side": 8, "points_per_batch": 10, "pred_iou_thresh": 0.01,
          "stability_score_thresh": 0.7, "stability_score_offset": 0.005}  # fmt: skip
CASES: dict[str, dict[str, float]] = {
    "whole": {},
    "no thresholds": {"pred_iou_thresh": 0, "stability_score_thresh": 0, "points_per_side": 5},
    "crops": {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.6},
    "two layers": {"crop_n_layers": 2, "crop_overlap_ratio": 0.2, "points_per_side": 4},
    "tidy": {"min_mask_region_area": 60, "box_nms_thresh": 0.9},
    "tidy crops": {"crop_n_layers": 1, "min_mask_region_area": 40, "crop_nms_thresh": 0.8},
}


def shaped_state(shapes: Mapping[str, Sequence[int]], seed: int = SEED) -> dict[str, Tensor]:
    """Random weights whose masks have shapes."""
    state = random_state(shapes, seed)
    state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] *= 0.3
    blocks = "mask_decoder.transformer.layers."
    for norm in ("0.norm3", "1.norm3", "0.norm4"):
        state[f"{blocks}{norm}.weight"] *= 0.3
    state[f"{blocks}1.cross_attn_image_to_token.out_proj.weight"] *= 3
    for layer in ("0", "3"):
        name = f"mask_decoder.output_upscaling.{layer}.weight"
        state[name] = state[name][:, :, :1, :1].expand(-1, -1, 2, 2) * 2
    return state


def main(path: str) -> None:
    """Write the vectors."""
    from segment_anything import SamAutomaticMaskGenerator

    torch.set_num_threads(1)
    model = small()
    shapes = {k: list(t.shape) for k, t in model.state_dict().items()}
    model.load_state_dict(shaped_state(shapes))
    found = {}
    for name, case in CASES.items():
        generator = SamAutomaticMaskGenerator(model, **COMMON | case, output_mode="coco_rle")
        found[name] = generator.generate(picture(SIZE))
    vectors = {"made_with": f"segment-anything 1.0, torch {torch.__version__}",
               "shapes": shapes, "found": found}  # fmt: skip
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(vectors, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
