"""Which split a document is in, and its place in the order: both by its content alone."""

from __future__ import annotations

import hashlib

import numpy as np

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)


def split_of(sha256: str, validation_fraction: float) -> str:
    """Returns the split of a document: its content alone decides, so none changes sides."""
    fraction = int(sha256[:16], 16) / float(1 << 64)
    return VALIDATION if fraction < validation_fraction else TRAIN


def are_validation(sha256: np.ndarray, validation_fraction: float) -> np.ndarray:
    """The same of many hashes [N, V32]: bool [N]."""
    heads = np.ascontiguousarray(sha256).view(">u8").reshape(-1, 4)[:, 0]
    return heads.astype(np.float64) / float(1 << 64) < validation_fraction


def order_key(sha256: bytes, seed: int, copy: int = 0) -> bytes:
    """Returns what documents are ordered by, 32 bytes; copies of a document lie far apart."""
    salt = f"{seed}:" if copy == 0 else f"{seed}:{copy}:"
    return hashlib.sha256(salt.encode() + sha256.hex().encode()).digest()
