"""Loss weights against the paper's own terms; timesteps that cover every level evenly."""

import pytest
import torch

from darkroom.diffusion.prediction import PREDICTIONS
from darkroom.training.loss import min_snr, stratified


@pytest.mark.parametrize("name", ["noise", "velocity", "sample"])
def test_min_snr_is_one_loss_for_all_predictions(name: str):
    """Whatever is predicted, the clean image's squared error weighs min(SNR, gamma)."""
    prediction = PREDICTIONS[name]()
    g = torch.Generator().manual_seed(0)
    clean, wrong, noise = torch.randn(3, 6, 1, 4, 4, generator=g, dtype=torch.float64)
    sigma = torch.tensor([0.01, 0.1, 0.4, 0.5, 3.0, 150.0], dtype=torch.float64)[
        :, None, None, None
    ]
    x = clean + sigma * noise
    # an output whose estimate of the clean image is `wrong`
    output = prediction.target(wrong, (x - wrong) / sigma, sigma)
    error = (output - prediction.target(clean, noise, sigma)).square()
    weighted = min_snr(prediction, sigma, gamma=5.0) * error
    expected = (sigma**-2).clamp_max(5.0) * (wrong - clean).square()
    torch.testing.assert_close(weighted, expected, rtol=1e-9, atol=1e-12)


def test_min_snr_by_the_paper_s_formulas():
    sigma = torch.tensor([0.1, 2.0], dtype=torch.float64)  # SNR 100 and 0.25
    assert min_snr(PREDICTIONS["sample"](), sigma).tolist() == pytest.approx([5, 0.25])
    assert min_snr(PREDICTIONS["noise"](), sigma).tolist() == pytest.approx([0.05, 1])
    assert min_snr(PREDICTIONS["velocity"](), sigma).tolist() == pytest.approx([5 / 101, 0.2])
    with pytest.raises(ValueError, match="Flow"):
        min_snr(PREDICTIONS["flow"](), sigma)


def test_stratified_timesteps():
    t = stratified(50, 1000, torch.Generator().manual_seed(0))
    assert (t.sort().values // 20).tolist() == list(range(50))
    assert t.tolist() != t.sort().values.tolist()
    noisy = stratified(1000, 1000, torch.Generator().manual_seed(0), emphasis=0.5)
    assert noisy.float().mean() > 600 and noisy.max() < 1000
