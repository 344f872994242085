"""What wrappers put in front of a network's names, taken off again.

``DataParallel``, ``torch.compile``, sharding, averaging and trainers' own classes each hold the
network as an attribute, so that every name begins with that attribute's, in any order and depth:
``module._orig_mod.model.image_encoder.neck.0.weight``.
"""

from collections.abc import Iterable

# No network has a layer of such a name, so they go wherever they stand.
ANYWHERE = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# These go where every name begins with the same one.
IN_FRONT = frozenset(
    {
        "autoencoder", "clip_model", "ema", "ema_model", "model", "model_state_dict", "net",
        "network", "online_model", "params", "params_ema", "pl_module", "sam", "sam_model",
        "state_dict", "student", "teacher", "vae",
    }
)  # fmt: skip
COUNTERS = frozenset({"n_averaged", "initted", "step"})  # of averaging, beside the network
LDM = "diffusion_model"  # model.diffusion_model.* is the name that LDM's own files use


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """The names without what wrappers put in front: new name -> name in the file.

    Names are left as they are where two would become the same.
    """
    old = list(names)
    paths = [[part for part in name.split(".") if part not in ANYWHERE] for name in old]
    own = [path for path in paths if path != [] and ".".join(path) not in COUNTERS]
    while own and own[0][0] in IN_FRONT and _is_wrapper(own):
        for path in own:
            del path[0]
    new = dict(zip(map(".".join, paths), old, strict=True))
    return new if len(new) == len(old) and "" not in new else {name: name for name in old}


def _is_wrapper(paths: list[list[str]]) -> bool:
    """Whether the first part of the paths is one and the same, and no name of the network's."""
    first = paths[0][0]
    if not all(len(path) > 1 and path[0] == first for path in paths):
        return False
    inner = {path[1] for path in paths}
    # a list of layers is a network's own: model.22.cv2 of YOLO, model.0.weight of ESRGAN
    return inner != {LDM} and not any(name.isdigit() for name in inner)
