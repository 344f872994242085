"""FastSAM's network: its sizes, what comes out of it, how cells become boxes."""

import pytest
import torch

from darkroom.models.fastsam.blocks import CrossStage, PyramidPooling
from darkroom.models.fastsam.network import (
    FASTSAM_S,
    FASTSAM_X,
    Dense,
    FastSAM,
    FastSAMConfig,
    centres,
    mask_logits,
    scaled,
)

TINY = FastSAMConfig(
    channels=(8, 8, 16, 16, 32),
    pairs=(1, 1, 1, 1),
    bins=4,
    classes=2,
    coefficients=5,
    box_channels=8,
    class_channels=8,
    coefficient_channels=8,
    prototype_channels=8,
)


def tiny() -> FastSAM:
    torch.manual_seed(0)
    return FastSAM(TINY).eval()


@pytest.mark.parametrize(
    ("config", "tensors", "numbers"), [(FASTSAM_S, 417, 11_811_541), (FASTSAM_X, 657, 71_812_301)]
)
def test_the_published_networks_have_their_published_sizes(config, tensors, numbers):
    with torch.device("meta"):
        state = FastSAM(config).state_dict()
    assert (len(state), sum(t.numel() for t in state.values())) == (tensors, numbers)


def test_the_multiples_of_the_family_are_rounded_and_capped():
    assert scaled(0.33, 0.25, 1024, classes=80).channels == (16, 32, 64, 128, 256)
    assert scaled(0.67, 0.75, 768).channels == (48, 96, 192, 384, 576)
    assert scaled(0.67, 0.75, 768).pairs == (2, 4, 4, 2)
    assert scaled(0.33, 0.25, 1024, classes=80).class_channels == 80


def test_three_levels_and_prototypes_come_out():
    dense = tiny()(torch.rand(2, 3, 64, 96))
    assert isinstance(dense, Dense)
    grids = [(8, 12), (4, 6), (2, 3)]
    assert [t.shape for t in dense.boxes] == [(2, 16, *grid) for grid in grids]
    assert [t.shape for t in dense.classes] == [(2, 2, *grid) for grid in grids]
    assert [t.shape for t in dense.coefficients] == [(2, 5, *grid) for grid in grids]
    assert dense.prototypes.shape == (2, 5, 16, 24)
    boxes, scores, coefficients, prototypes = tiny().decode(dense)
    cells = sum(height * width for height, width in grids)
    assert boxes.shape == (2, cells, 4)
    assert scores.shape == (2, cells, 2)
    assert coefficients.shape == (2, cells, 5)
    assert prototypes is dense.prototypes


def test_a_sure_distribution_is_a_box_around_its_cell():
    """Cell (1, 2) of the level of 16 pixels: 1, 2, 3 and 0 cells to left, top, right, bottom."""
    network = tiny()
    dense = network(torch.rand(1, 3, 64, 96))
    logits = torch.zeros(4, 4)
    logits[range(4), [1, 2, 3, 0]] = 100.0
    dense.boxes[1][0, :, 1, 2] = logits.flatten()
    box = network.decode(dense).boxes[0, 8 * 12 + 6 + 2]
    assert box.tolist() == [(2.5 - 1) * 16, (1.5 - 2) * 16, (2.5 + 3) * 16, 1.5 * 16]
    dense.boxes[1][0, :, 1, 2] = 0  # unsure: all bins alike, so their mean
    box = network.decode(dense).boxes[0, 8 * 12 + 6 + 2]
    assert box.tolist() == [(2.5 - 1.5) * 16, 0, (2.5 + 1.5) * 16, 3 * 16]


def test_cells_are_counted_row_by_row():
    assert centres(2, 3, 8, torch.zeros(())).tolist() == [
        [4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12],
    ]  # fmt: skip


def test_masks_are_sums_of_prototypes():
    prototypes = torch.rand(3, 4, 5)
    made = mask_logits(torch.tensor([[1.0, 0, 0], [0.5, -1, 2]]), prototypes)
    assert torch.equal(made[0], prototypes[0])
    torch.testing.assert_close(made[1], prototypes[0] / 2 - prototypes[1] + 2 * prototypes[2])


def test_every_parameter_learns():
    network = tiny().train()
    dense = network(torch.rand(2, 3, 64, 64))
    boxes, scores, coefficients, prototypes = network.decode(dense)
    masks = mask_logits(coefficients[0], prototypes[0])
    (boxes.mean() + scores.mean() + masks.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert "head.bins" not in dict(network.named_parameters())


def test_training_starts_from_rare_objects():
    network = FastSAM(TINY)
    at_eight = network.head.classify[0].get_parameter("2.bias")
    assert torch.allclose(at_eight.exp() * 80 * 80, torch.tensor(5 / 2))


def test_a_skip_is_added_and_pooling_looks_far():
    torch.manual_seed(0)
    block = CrossStage(4, 4, 1, skip=True).eval()
    x = torch.rand(1, 4, 8, 8)
    before = block(x)
    block.pair[0].skip = False
    assert not torch.equal(before, block(x))
    pool = PyramidPooling(4).eval()
    pool.enter.conv.weight.data.abs_()  # a bright pixel is a maximum
    x = torch.zeros(1, 4, 31, 31)
    y = x.clone()
    y[:, :, 15, 15] = 1
    changed = (pool(x) != pool(y)).any(dim=1)[0].nonzero()
    assert (changed.amin().item(), changed.amax().item()) == (9, 21)  # 13 pixels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (8, 8, 16, 16, 31)}, "channels: 31 cannot be halved"),
        ({"channels": (8, 8, 16, 16)}, "channels has 4 values; expected 5"),
        ({"pairs": (1, 1, 1)}, "pairs has 3 values; expected 4"),
        ({"classes": 0}, "classes = 0; expected at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FastSAM(FastSAMConfig(**change))
