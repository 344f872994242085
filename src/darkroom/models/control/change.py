"""A ControlNet that is told as changes to a U-Net: difference files and Control-LoRA."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from darkroom.errors import ModelMismatchError
from darkroom.models.control.controlnet import COPIED, ControlNet, ControlNetConfig
from darkroom.models.unet import UNet


class ControlNetChange(nn.Module):
    """The tensors of such a file; ``on(unet)`` makes the network.

    Args:
        tensors: by the names of ``ControlNet``'s parameters, or for a product of two matrices (of
            low rank) by the name of a layer and ``.up`` and ``.down``.
        added: True: what the U-Net has too is added to its weights ("difference"); False: it
            replaces them. Products are always added.
    """

    def __init__(
        self, config: ControlNetConfig, tensors: Mapping[str, Tensor], added: bool = False
    ) -> None:
        super().__init__()
        self.config, self.added = config, added
        self.names = tuple(tensors)
        self.values = nn.ParameterList(
            nn.Parameter(tensor, requires_grad=False) for tensor in tensors.values()
        )

    @torch.no_grad()
    def on(self, unet: UNet) -> ControlNet:
        """The network whose base is ``unet``, of that one's dtype and on its device.

        Raises:
            ModelMismatchError: when the shapes are those of another base.
        """
        theirs = unet.config  # what the shapes of changes do not tell is the base's
        sizes = replace(self.config.unet, heads=theirs.heads, groups=theirs.groups)
        with torch.device("meta"):
            net = ControlNet(replace(self.config, unet=sizes))
        base = {
            f"{part}.{name}": tensor
            for part in COPIED
            if isinstance(module := getattr(unet, part), nn.Module)
            for name, tensor in module.state_dict().items()
        }
        base["input.weight"] = base["input.weight"][:, : self.config.unet.in_channels]
        shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
        state = {name: base[name] for name in shapes if name in base}
        like = next(unet.parameters())
        tensors = dict(zip(self.names, self.values, strict=True))
        try:
            for name, tensor in tensors.items():
                tensor = tensor.to(like)
                layer, _, leaf = name.rpartition(".")
                if leaf == "down":
                    continue
                if leaf == "up":
                    down = tensors[f"{layer}.down"].to(like)
                    name = f"{layer}.weight"
                    change = (tensor.flatten(1) @ down.flatten(1)).reshape(shapes[name])
                    state[name] = base[name] + change
                elif self.added and name in state:
                    state[name] = base[name] + tensor
                else:
                    state[name] = tensor
            net.load_state_dict(state, assign=True)
        except (RuntimeError, KeyError) as error:
            raise ModelMismatchError(
                "the control network holds changes to another U-Net than this one "
                f"({str(error).splitlines()[-1].strip():.200}): load the base that it was made for"
            ) from None
        return net.eval().requires_grad_(False)
