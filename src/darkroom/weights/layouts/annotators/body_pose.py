"""Where body_pose_model.pth keeps the network for body poses: the names of CMU's Caffe model."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from darkroom.models.annotators.body_pose import BodyPose, BodyPoseConfig
from darkroom.weights.layout import Entry, Layout

BRANCHES = {"L1": "fields", "L2": "joints"}
VGG = 2  # convolutions of the last level that are VGG-19's; later ones are called CPM


def entries(config: BodyPoseConfig) -> Iterator[Entry]:
    """Every convolution: conv3_2, conv4_3_CPM, conv5_1_CPM_L1, Mconv1_stage2_L1 and the like."""
    levels = len(config.front)
    for level, convs in enumerate(config.front):
        for index in range(len(convs)):
            cpm = "_CPM" if level == levels - 1 and index >= VGG else ""
            yield Entry(f"conv{level + 1}_{index + 1}{cpm}", f"front.{level}.{index}")
    for theirs, ours in BRANCHES.items():
        for index in range(5):
            yield Entry(f"conv{levels + 1}_{index + 1}_CPM_{theirs}", f"{ours}.0.{index}")
        for stage in range(1, config.stages):
            for index in range(7):
                yield Entry(
                    f"Mconv{index + 1}_stage{stage + 1}_{theirs}", f"{ours}.{stage}.{index}"
                )


OPENPOSE = Layout("OpenPose", "conv5_1_CPM_L1.", entries, BodyPose, {"body": BodyPoseConfig()})


def body_pose_sizes(state: Mapping[str, Tensor]) -> BodyPoseConfig:
    """The config of a file, by its names and shapes.

    Raises:
        KeyError: a tensor that tells a size is missing.
    """
    usual = BodyPoseConfig()  # levels and their lengths do not vary
    front: dict[str, list[int]] = {}
    for entry in entries(usual):
        level, _, _ = entry.targets[0].rpartition(".")
        if level.startswith("front."):
            front.setdefault(level, []).append(_channels(state, entry.theirs))
    return BodyPoseConfig(
        front=tuple(map(tuple, front.values())),
        channels=_channels(state, "conv5_1_CPM_L1"),
        first=_channels(state, "conv5_4_CPM_L1"),
        stages=1 + sum(name.startswith("Mconv7_") and name.endswith("L1.bias") for name in state),
        fields=_channels(state, "conv5_5_CPM_L1"),
        joints=_channels(state, "conv5_5_CPM_L2"),
    )


def _channels(state: Mapping[str, Tensor], conv: str) -> int:
    return state[f"{conv}.weight"].shape[0]
