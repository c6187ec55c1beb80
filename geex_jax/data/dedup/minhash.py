"""MinHash signatures of texts, and the bands in which similar ones meet.

A text's words (see `ngrams`: operators, white space and case do not count) are hashed, runs of
`shingle` words are combined to 64 bits, and rensa's R-MinHash makes the
signature from them. All of it depends on nothing but the text: not on the process, the machine
or Python's hash seed. rensa numbers its algorithm; the number is among the settings that a run
remembers, so that signatures of two algorithms never meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geex_jax.data.recipe import Dedup
from geex_jax.data.stages import ngrams

SEED = 1
RECALL = 0.99  # at the threshold: the share of pairs that meet in one band at least
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _rensa() -> Any:  # the package has no stubs
    import rensa

    return vars(rensa)["RMinHash"]


def algorithm() -> str:
    """Returns the name of what makes signatures; those of two algorithms cannot be compared."""
    return f"rensa R-MinHash {_rensa().ALGORITHM_VERSION}"


def mix(values: np.ndarray) -> np.ndarray:
    """Returns uint64 values with all bits spread over all (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def shingles(text: str, size: int) -> np.ndarray:
    """Returns a 64-bit hash of every run of `size` words of a text [words - size + 1]."""
    hashes = ngrams.words(text.encode("utf-8", "surrogatepass"))
    count = len(hashes) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    combined = hashes[:count].copy()
    for k in range(1, size):
        combined *= _PRIME
        combined += hashes[k : k + count]
    return mix(combined)


def signatures(hashes: Sequence[np.ndarray], permutations: int) -> np.ndarray:
    """Returns the signatures [documents, permutations], uint32, of documents' shingles."""
    offsets = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum([len(h) for h in hashes], out=offsets[1:])
    flat = np.concatenate([*hashes, np.zeros(0, np.uint64)])
    matrix = _rensa().digest_matrix_from_flat_token_hashes(flat, offsets, permutations, SEED)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(hashes), permutations)


def bands(settings: Dedup) -> tuple[int, int]:
    """Returns (bands, rows of a band): the narrowest net that holds RECALL at the threshold.

    Two documents of similarity s meet in some band with probability 1 - (1 - s^rows)^bands.
    """
    for rows in range(settings.permutations, 0, -1):
        count = settings.permutations // rows
        if 1 - (1 - settings.near**rows) ** count >= RECALL:
            return count, rows
    return settings.permutations, 1


def band_keys(signatures: np.ndarray, count: int, rows: int) -> np.ndarray:
    """Returns a 64-bit key of each band of each signature [documents, bands]."""
    cut = signatures[:, : count * rows].reshape(len(signatures), count, rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, count + 1, dtype=np.uint64), cut.shape[:2]).copy()
    for k in range(rows):
        keys *= _PRIME
        keys += cut[:, :, k]
        keys ^= keys >> np.uint64(29)
    return mix(keys)


def similarity(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the estimated Jaccard similarity of a signature [P] with others [N, P]."""
    return (others == one).mean(axis=1)
