"""A fixed hash of whole numbers, which no library's version changes."""

import numpy as np


def scrambled(keys: np.ndarray) -> np.ndarray:
    """Scatter (...,) uint64 keys evenly, one to one: distinct keys stay distinct.

    Source: the mixing function of SplitMix64; Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", OOPSLA 2014.
    """
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: np.ndarray = keys ^ (keys >> np.uint64(31))
    return scattered
