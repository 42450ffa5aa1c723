"""Random numbers of a sample, which are the same in any batch, on any rank and in a resumed run."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """The stream of each of N samples in one epoch, keyed by (seed, epoch, sample).

    Counter-based: number j of a stream is splitmix64's j-th output from the stream's key. (Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", OOPSLA 2014; constants as in Vigna's splitmix64.c.)
    """

    def __init__(self, seed: int, epoch: int, samples: np.ndarray | Tensor) -> None:
        numbers_N = np.asarray(samples, np.int64).astype(np.uint64)
        with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is intended
            key = _mix(np.array([seed], np.int64).astype(np.uint64) + _GOLDEN)
            key = _mix((key ^ np.array([epoch], np.int64).astype(np.uint64)) + _GOLDEN)
            self._key_Nx1 = _mix((key ^ numbers_N) + _GOLDEN)[:, None]
        self._drawn = 0

    def uniform(self, k: int) -> Tensor:
        """The next k numbers of each stream: float32 [N, k] in [0, 1)."""
        counter_k = np.arange(self._drawn + 1, self._drawn + k + 1, dtype=np.uint64)
        self._drawn += k
        with np.errstate(over="ignore"):
            bits_Nxk = _mix(self._key_Nx1 + counter_k * _GOLDEN)
        return torch.from_numpy((bits_Nxk >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
