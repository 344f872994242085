"""Body pose: part affinity fields (Cao et al., arXiv:1611.08050).

Shapes: B batch, H W height and width of the image. Two branches, one for the fields that point
along limbs and one for the maps of joints, refine each other over the stages.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Size


@dataclass(frozen=True, kw_only=True)
class BodyPoseConfig:
    front: tuple[tuple[Size, ...], ...] = (  # channels of the convolutions before each pooling
        (64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 256, 128),
    )  # fmt: skip
    channels: Size = 128  # of every stage
    first: Size = 512  # channels of the first stage's 1x1 convolution
    stages: Size = 6
    fields: Size = 38  # two for each limb
    joints: Size = 19  # the last one is the background


class BodyPose(nn.Module):
    """Images to fields of limbs and maps of joints, at an eighth of their size."""

    def __init__(self, config: BodyPoseConfig) -> None:
        super().__init__()
        self.config = config
        self.front, width = nn.ModuleList(), 3
        for level in config.front:
            convs = nn.ModuleList()
            for channels in level:
                convs.append(nn.Conv2d(width, channels, 3, padding=1))
                width = channels
            self.front.append(convs)
        self.fields, self.joints = nn.ModuleList(), nn.ModuleList()
        c, wider = config.channels, width + config.fields + config.joints
        for branch, out in ((self.fields, config.fields), (self.joints, config.joints)):
            branch.append(_stage(width, (c, c, c, config.first, out), (3, 3, 3, 1, 1)))
            for _ in range(1, config.stages):
                branch.append(_stage(wider, (c, c, c, c, c, c, out), (7, 7, 7, 7, 7, 1, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W), BGR in -0.5 to 0.5, to fields (B, 38, H / 8, W / 8), joints (B, 19, ...).

        H and W are multiples of 8.
        """
        for index, level in enumerate(self.front):
            x = F.max_pool2d(x, 2) if index else x
            for conv in level.children():
                x = F.relu(conv(x))
        seen = x
        fields = joints = x  # of no stage yet
        for index, (a, b) in enumerate(zip(self.fields, self.joints, strict=True)):
            fields, joints = _run(a, seen), _run(b, seen)
            if index + 1 < self.config.stages:
                seen = torch.cat((fields, joints, x), dim=1)
        return fields, F.relu(joints)  # clipped, as in the port whose weights are public


def _stage(width: int, channels: tuple[int, ...], sizes: tuple[int, ...]) -> nn.ModuleList:
    convs = nn.ModuleList()
    for out, size in zip(channels, sizes, strict=True):
        convs.append(nn.Conv2d(width, out, size, padding=size // 2))
        width = out
    return convs


def _run(convs: nn.Module, x: Tensor) -> Tensor:
    *inner, last = convs.children()
    for conv in inner:
        x = F.relu(conv(x))
    return last(x)
