"""Quantiles of the beta distribution."""

import math

import numpy as np


def beta_quantiles(shares: np.ndarray, a: float = 0.6, b: float = 0.6) -> np.ndarray:
    """Where the beta distribution has the given shares of its mass below.

    By bisection; as exact as float64 is near 0 and 1 (the tests compare with scipy).

    Args:
        shares: (N,), each from 0 to 1.
    """
    # of x and of 1 - x, whichever is below 1/2, so that neither end loses digits
    middle = _share_below(np.array([0.5]), a, b)[0]
    lower = shares <= middle
    wanted = np.where(lower, shares, 1 - shares)
    one, two = np.where(lower, a, b), np.where(lower, b, a)
    # in log x: the mass at 0 is spread over many powers of ten
    low, high = np.full(shares.shape, -745.0), np.full(shares.shape, math.log(0.5))
    for _ in range(64):
        centre = (low + high) / 2
        below = _share_below(np.exp(centre), one, two) < wanted
        low, high = np.where(below, centre, low), np.where(below, high, centre)
    found = np.where(wanted <= 0, 0.0, np.exp(high))
    return np.where(lower, found, 1 - found)


def _share_below(x: np.ndarray, a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """The regularised incomplete beta function for x at most 1/2: its hypergeometric series.

    Abramowitz & Stegun, 26.5.4, from the ratio of its terms.
    """
    a, b = np.broadcast_to(a, x.shape), np.broadcast_to(b, x.shape)
    gamma = np.vectorize(math.lgamma, otypes=[float])
    log_beta = gamma(a) + gamma(b) - gamma(a + b)
    total, term = np.ones_like(x), np.ones_like(x)
    for n in range(80):  # x <= 1/2: each term is at most half of the one before, about
        term = term * x * (a + b + n) / (a + 1 + n)
        total = total + term
    return np.exp(a * np.log(np.maximum(x, 1e-320)) + b * np.log1p(-x) - log_beta) / a * total
