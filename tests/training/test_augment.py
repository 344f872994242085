import torch

from darkroom.training.augment import COLOURS, colour, compose, tint


def picture(rgb, alpha=255):
    return torch.tensor([*rgb, alpha], dtype=torch.uint8)[None, :, None, None].expand(1, 4, 8, 8)


def test_transparent_pixels_show_the_ground():
    image = compose(picture((10, 20, 30), alpha=0), colour(["blue"]))
    want = torch.tensor(COLOURS["blue"]) / 127.5 - 1
    torch.testing.assert_close(image[0, :, 0, 0], want)


def test_a_coloured_picture_takes_the_colour():
    red = tint(picture((200, 30, 30)), colour(["blue"]))[0, :3, 0, 0]
    torch.testing.assert_close(red.float(), torch.tensor(COLOURS["blue"]).float(), atol=2, rtol=0)


def test_white_black_and_grey_keep_theirs():
    for level in (0, 128, 255):
        kept = tint(picture((level, level, level)), colour(["red"]))[0, :3, 0, 0]
        assert kept.tolist() == [level] * 3


def test_shading_survives():
    pixels = picture((200, 30, 30)).clone()
    pixels[..., :4] = picture((120, 10, 10))[..., :4]
    tinted = tint(pixels, colour(["green"])).float()[0, :3].mean(0)
    assert tinted[0, 0] < tinted[0, -1] - 10


def test_alpha_is_untouched():
    pixels = torch.randint(0, 256, (3, 4, 8, 8), dtype=torch.uint8)
    assert torch.equal(tint(pixels, colour(["red"] * 3))[:, 3], pixels[:, 3])
