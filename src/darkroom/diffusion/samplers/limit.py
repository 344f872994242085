"""Keeping an estimate in the range of images: for networks that paint pixels, not latents."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Limit:
    """Clips an estimate to [-largest, largest], or thresholds it dynamically.

    Attributes:
        largest: the bound; under dynamic thresholding the largest that the bound may become, even
            below 1.
        quantile: None clips. Else each image is clipped to this quantile of its absolute values
            (at least 1) and divided by it: Saharia et al., arXiv:2205.11487, section 2.3.
    """

    largest: float = 1.0
    quantile: float | None = None

    def __call__(self, denoised: Tensor) -> Tensor:
        if self.quantile is None:
            return denoised.clamp(-self.largest, self.largest)
        bound = denoised.abs().flatten(1).quantile(self.quantile, dim=1)
        bound = bound.clamp(1, self.largest).view(-1, *[1] * (denoised.ndim - 1))
        return denoised.clamp(-bound, bound) / bound


def limited(denoised: Tensor, limit: Limit | None) -> Tensor:
    """``denoised``, within ``limit`` if there is one."""
    return denoised if limit is None else limit(denoised)
