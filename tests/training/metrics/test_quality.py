import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from darkroom.training.metrics.quality import psnr, ssim


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_both_are_those_of_scikit_image(noise):
    g = torch.Generator().manual_seed(1)
    a = torch.rand(3, 3, 24, 31, generator=g, dtype=torch.float64)
    b = (a + noise * torch.randn(a.shape, generator=g, dtype=torch.float64)).clamp(0, 1)
    for i in range(3):
        x, y = (np.moveaxis(t[i].numpy(), 0, -1) for t in (a, b))
        assert psnr(a, b)[i] == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1))
        theirs = structural_similarity(
            x, y, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert ssim(a, b)[i] == pytest.approx(theirs, abs=1e-9)


def test_equal_images_and_small_ones():
    a = torch.rand(2, 1, 11, 11)
    assert psnr(a, a).isinf().all()
    assert ssim(a, a) == pytest.approx(torch.ones(2))
    with pytest.raises(ValueError, match="window"):
        ssim(a[..., :10], a[..., :10])
