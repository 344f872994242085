import torch

from darkroom.training.crops import cut, draw_crops, scaled


def test_crops_lie_inside_and_are_as_large_as_asked():
    boxes, mirrored = draw_crops(500, 48, 0.4, torch.Generator().manual_seed(0))
    top, left, height, width = boxes.unbind(1)
    assert bool((top >= 0).all() and (left >= 0).all())
    assert bool((top + height <= 48).all() and (left + width <= 48).all())
    area = height * width / 48**2
    assert 0.36 < area.min() < 0.45
    assert area.max() > 0.9
    assert top.unique().numel() > 10
    assert 0.4 < mirrored.float().mean() < 0.6


def test_a_cut_shows_what_is_there():
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    pixels[:, 0, :, 4:] = 255  # red on the right
    boxes = torch.tensor([[0, 0, 8, 8], [0, 4, 4, 4]])
    crops = cut(pixels, boxes, torch.tensor([True, False]), 4)
    assert crops.shape == (2, 3, 4, 4)
    assert crops[0, 0, :, :1].min() > 0.9 > 0.1 > crops[0, 0, :, -1:].max()  # mirrored
    assert torch.equal(crops[1, 0], torch.ones(4, 4))
    assert crops[1, 1:].max() == 0


def test_nothing_is_scaled_to_its_own_size():
    pixels = torch.randint(256, (2, 3, 6, 6), dtype=torch.uint8)
    assert scaled(pixels, 6) is pixels
    assert scaled(pixels, 3).dtype == torch.uint8
