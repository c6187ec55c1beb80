"""Hashes of the n-grams of a text's words, by numpy over the whole text at once.

A word is a run of letters, digits, "_", "$" or bytes above ASCII, in lower case; all else is
dropped. So indentation, line breaks, comment signs and brackets make no difference, and a
docstring has the same n-grams in Python, Go and Java. Of a word the first 16 bytes and the length
count.
"""

from __future__ import annotations

import numpy as np

N = 13
_WORD = bytes(
    int(i >= 128 or chr(i).isalnum() or chr(i) in "_$") for i in range(256)
)  # 1 for bytes of words
_LOWER = bytes(i + 32 if 65 <= i <= 90 else i for i in range(256))
_MASKS = np.array([(1 << (8 * i)) - 1 for i in range(9)], np.uint64)
# Odd constants of well-known mixers (SplitMix64, xxHash): products of 64 bits, wrapping.
_K1, _K2, _K3, _Q = (
    np.uint64(k)
    for k in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x94D049BB133111EB, 0xBF58476D1CE4E5B9)
)
_Q2, _Q4 = (np.uint64(pow(int(_Q), k, 1 << 64)) for k in (2, 4))
_Q5 = np.uint64(pow(int(_Q), 5, 1 << 64))
_SHIFT = np.uint64(32)
_PAD = bytes(16)


def words(data: bytes) -> np.ndarray:
    """Returns a hash for each word of UTF-8 text: uint64 [words]."""
    starts, lengths = _spans(data)
    return _hashes(data, starts, lengths)


def _spans(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns first bytes and lengths of the words: intp [words] each."""
    inside = np.zeros(len(data) + 2, np.bool_)
    inside[1:-1] = np.frombuffer(data.translate(_WORD), np.bool_)
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts = edges[0::2]
    return starts, edges[1::2] - starts


def _hashes(data: bytes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    padded = data.translate(_LOWER) + _PAD
    # Eight bytes from any place on, as one number.
    eight = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    first = eight[starts] & _MASKS[np.minimum(lengths, 8)]
    second = eight[starts + 8] & _MASKS[np.clip(lengths - 8, 0, 8)]
    second += lengths.astype(np.uint64) << np.uint64(56)
    first *= _K1
    second *= _K2
    first ^= first >> _SHIFT
    first += second
    first ^= first >> _SHIFT
    first *= _K3
    return first


def of_words(hashes: np.ndarray) -> np.ndarray:
    """Returns the hashes of all runs of N words: uint64 [words - N + 1], or [0].

    Polynomials in Q whose coefficients are the words' hashes, of 2, 4, 8 and then 13 words.
    """
    if len(hashes) < N:
        return np.zeros(0, np.uint64)
    two = hashes[:-1] * _Q + hashes[1:]
    four = two[:-2] * _Q2 + two[2:]
    eight = four[:-4] * _Q4 + four[4:]
    count = len(hashes) - N + 1
    grams = eight[:count] * _Q5
    grams += four[8 : 8 + count] * _Q
    grams += hashes[12 : 12 + count]
    grams ^= grams >> _SHIFT
    grams *= _K1
    return grams


def with_words(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns (n-grams, how many real words each holds): uint64 and int64 [n-grams].

    A real word has a letter and a second character: neither a row of numbers nor the alphabet,
    letter by letter, is a sign of a copy. For the few texts that are looked for.
    """
    starts, lengths = _spans(data)
    grams = of_words(_hashes(data, starts, lengths))
    real = [
        n > 1 and any(c >= 128 or chr(c).isalpha() for c in data[s : s + n])
        for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    total = np.concatenate([[0], np.cumsum(np.array(real, np.int64))])
    return grams, (total[N:] - total[:-N]) if len(grams) else np.zeros(0, np.int64)
