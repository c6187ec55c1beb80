"""Keys, passwords, e-mail and IP addresses, replaced by placeholders that keep the code parsing.

A scan over the bytes by numpy finds the few places that can hold something: runs of 12 letters
and digits with a digit, "@" between words, dotted numbers, groups of hexadecimal digits. Only
around those places regular expressions are tried.
"""

from __future__ import annotations

import bisect
import collections
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from geex_jax.data.document import Decision, Document
from geex_jax.data.stages import personal, secret_rules
from geex_jax.errors import GeexError

KINDS = ("keys", "emails", "addresses")
_RUN = 12
_AROUND = 240  # bytes before and behind a place that are looked at, within its line
_MARKED = 160
_WORD, _DIGIT, _HEX, _LOCAL = 1, 2, 4, 8
_CLASSES = bytes(
    _WORD * (chr(i).isalnum() and i < 128)
    + _DIGIT * (48 <= i < 58)
    + _HEX * (chr(i) in "0123456789abcdefABCDEF")
    + _LOCAL * (i in personal.LOCAL)
    for i in range(256)
)
# Of keys that may hold no run of letters and digits as long as is looked for.
_PREFIXES = (b"AKIA", b"ASIA", b"ABIA", b"ACCA", b"AIza", b"glpat-")
_BLOCK = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?-----(.{16,20000}?)"
    rb"-----END [A-Z0-9 ]{0,24}PRIVATE KEY",
    re.S,
)
# Base64 within a block, which may stand in string literals ("MIIE...\n" +).
_BASE64 = re.compile(rb"(?:(?<=\\n)|(?<=\\r)|(?<![\\A-Za-z0-9+/=]))[A-Za-z0-9+/=]{8,}")


class Found(NamedTuple):
    """A secret at bytes first..behind of a text."""

    first: int
    behind: int
    kind: str


class Secrets:
    """Stage: replaces secrets in text and prompt; keeps every document.

    The same secret gets the same placeholder within a document, numbered by first appearance:
    `email1@example.com`, `192.0.2.1`, `2001:db8::1`, `GITHUB_TOKEN_1`, `SECRET_1`. Counts: the
    kinds found; facts: `secrets`, the same.

    Args:
      kinds: of "keys" (keys, tokens, passwords), "emails", "addresses".

    Raises:
      GeexError: a kind that there is not.
    """

    name = "secrets"

    def __init__(self, kinds: tuple[str, ...] | list[str] = KINDS):
        for kind in kinds:
            if kind not in KINDS:
                raise GeexError(f"secrets knows no {kind!r}", f"choose of: {', '.join(KINDS)}")
        self.kinds = tuple(kind for kind in KINDS if kind in kinds)

    def settings(self) -> dict[str, Any]:
        """Returns the kinds."""
        return {"kinds": list(self.kinds)}

    def __call__(self, document: Document) -> Decision:
        """Replaces what it finds."""
        placeholders = Placeholders()
        if document.prompt:
            document.prompt = self._replace(document.prompt, placeholders)
        document.text = self._replace(document.text, placeholders)
        counts = dict(sorted(placeholders.counts.items()))
        if not counts:
            return Decision(True, note="no secrets")
        document.facts["secrets"] = counts
        note = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        return Decision(True, note=f"replaced: {note}", counts=counts)

    def _replace(self, text: str, placeholders: Placeholders) -> str:
        data = text.encode()
        found = self.find(data)
        if not found:
            return text
        pieces, place = [], 0
        for secret in found:
            value = data[secret.first : secret.behind]
            pieces += data[place : secret.first], placeholders.of(secret.kind, value)
            place = secret.behind
        return b"".join((*pieces, data[place:])).decode()

    def find(self, data: bytes) -> list[Found]:
        """Returns the secrets in UTF-8 text, in order, none overlapping another."""
        if len(data) < 8:
            return []
        classes = np.frombuffer(data.translate(_CLASSES), np.uint8)
        found: list[Found] = []
        if "keys" in self.kinds:
            found += _blocks(data)
            found += _keys(data, classes)
        if "emails" in self.kinds or "keys" in self.kinds:
            found += (f for f in _at_signs(data, classes) if self._wanted(f.kind))
        if "addresses" in self.kinds:
            found += _ipv4(data, classes)
            found += _ipv6(data, classes)
        # Finders come in order of certainty: of two that overlap the first stays.
        taken: list[Found] = []
        for secret in found:
            place = bisect.bisect(taken, secret)
            before = place and taken[place - 1].behind > secret.first
            if not before and not (place < len(taken) and taken[place].first < secret.behind):
                taken.insert(place, secret)
        return taken

    def _wanted(self, kind: str) -> bool:
        return ("emails" if kind == "email" else "keys") in self.kinds


class Placeholders:
    """What stands in place of the secrets of one document."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._known: dict[tuple[str, bytes], bytes] = {}
        self._numbers: collections.Counter[str] = collections.Counter()

    def of(self, kind: str, value: bytes) -> bytes:
        """Returns the placeholder of a secret, and counts it."""
        self.counts[kind] += 1
        key = (kind, value)
        if key not in self._known:
            self._numbers[kind] += 1
            self._known[key] = _placeholder(kind, self._numbers[kind]).encode()
        return self._known[key]


def _placeholder(kind: str, number: int) -> str:
    if kind == "email":
        return f"email{number}@example.com"
    if kind == "ipv4":  # the three networks for documentation
        network = ("192.0.2", "198.51.100", "203.0.113")[(number - 1) // 254 % 3]
        return f"{network}.{(number - 1) % 254 + 1}"
    if kind == "ipv6":
        return f"2001:db8::{number:x}" if number < 1 << 16 else "2001:db8::ffff"
    if kind == "private_key":
        return f"PRIVATE{number}KEY"
    return f"{kind.upper()}_{number}"


def _blocks(data: bytes) -> Iterator[Found]:
    """Finds the lines of private keys in PEM form."""
    if b"PRIVATE KEY" in data:
        for block in _BLOCK.finditer(data):
            for run in _BASE64.finditer(data, *block.span(1)):
                if not run[0].startswith(b"PRIVATE"):
                    yield Found(*run.span(), "private_key")


def _long_runs(classes: np.ndarray) -> list[int]:
    """Returns where a run of 12 letters and digits, at least one digit among them, begins.

    Of a longer run every 12 bytes count, so that a key that begins with letters is found too.
    """
    word = classes & _WORD
    two = word[:-1] & word[1:]
    four = two[:-2] & two[2:]
    eight = four[:-4] & four[4:]
    runs = np.flatnonzero(eight[:-4] & four[8:])
    if not len(runs):
        return []
    digits = np.cumsum(classes & _DIGIT, dtype=np.int64)
    holds = digits[runs + _RUN - 1] > digits[runs] - (classes[runs] & _DIGIT)
    return runs[holds].tolist()


def _windows(data: bytes, places: list[int]) -> Iterator[tuple[int, str]]:
    """Yields (offset, text) of what is around the places on their lines, each byte once."""
    end = -1
    for place in places:
        if place < end:
            continue
        first = max(data.rfind(b"\n", max(0, place - _AROUND), place) + 1, place - _AROUND, end, 0)
        end = data.find(b"\n", place, place + 4 * _AROUND)
        end = min(place + 4 * _AROUND, len(data)) if end < 0 else end
        yield first, data[first:end].decode("latin-1")  # so that places are those of the bytes


def _keys(data: bytes, classes: np.ndarray) -> Iterator[Found]:
    """Finds keys with a known prefix, and random values assigned to names that promise one."""
    places = _long_runs(classes)
    for prefix in _PREFIXES:
        place = data.find(prefix)
        while place >= 0:
            bisect.insort(places, place)
            place = data.find(prefix, place + 4)
    for offset, text in _windows(data, places):
        for match in secret_rules.KNOWN.finditer(text):
            kind, first, behind = secret_rules.kind_of(match)
            if secret_rules.is_real(kind, text[first:behind]):
                yield Found(offset + first, offset + behind, kind)
        for match in secret_rules.ASSIGNED.finditer(text):
            if secret_rules.is_assigned_secret(match, text[: match.start()]):
                first, behind = match.span("value")
                yield Found(offset + first, offset + behind, "secret")


def _at_signs(data: bytes, classes: np.ndarray) -> Iterator[Found]:
    """Finds e-mail addresses, and passwords in URLs."""
    if b"@" not in data:
        return
    signs = np.frombuffer(data, np.uint8)[1:-1] == ord("@")
    signs &= (classes[:-2] & _LOCAL) != 0
    signs &= (classes[2:] & _WORD) != 0
    for place in (np.flatnonzero(signs) + 1).tolist():
        before = data[max(0, place - _MARKED) : place]
        if b"://" in before and (url := personal.URL_PASSWORD.search(before)):
            host = personal.DOMAIN.match(data, place + 1)
            if personal.is_password(url[1], host[0] if host else b""):
                yield Found(place - len(url[1]), place, "password")
            continue
        domain = personal.DOMAIN.match(data, place + 1)
        if domain is None:
            continue
        local = before[len(before.rstrip(personal.LOCAL)) :].lstrip(b".%+-")
        if local and personal.is_email(local, domain[0], domain[1]):
            yield Found(place - len(local), domain.end(), "email")


def _line_before(data: bytes, place: int) -> bytes:
    return data[max(place - 40, data.rfind(b"\n", max(0, place - 40), place) + 1, 0) : place]


def _ipv4(data: bytes, classes: np.ndarray) -> Iterator[Found]:
    dots = np.frombuffer(data, np.uint8)[1:-1] == ord(".")
    dots &= (classes[:-2] & classes[2:] & _DIGIT) != 0
    places = np.flatnonzero(dots) + 1
    if len(places) < 3:
        return
    end = 0
    for place in places[:-2][places[2:] - places[:-2] <= 8].tolist():
        match = personal.IPV4.search(data, max(end, place - 3), place + 18)
        if match is None:
            continue
        end = match.end()
        if personal.is_address(match[0].decode(), _line_before(data, match.start())):
            yield Found(*match.span(), "ipv4")


def _ipv6(data: bytes, classes: np.ndarray) -> Iterator[Found]:
    signs = np.frombuffer(data, np.uint8)
    colons = signs[4:] == ord(":")
    for behind in range(1, 5):
        colons &= (classes[4 - behind : -behind] & _HEX) != 0
    colons &= (signs[:-4] == ord("2")) | (signs[:-4] == ord("3"))  # all that is routed today
    for place in np.flatnonzero(colons).tolist():
        match = personal.IPV6.match(data, place)
        if match and personal.is_address(match[0].decode(), _line_before(data, place)):
            yield Found(*match.span(), "ipv6")
