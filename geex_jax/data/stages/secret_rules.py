"""What keys and tokens look like, and which values are random enough to be one."""

from __future__ import annotations

import collections
import itertools
import math
import re

# Each kind with its pattern; the group, where there is one, is the secret. Prefixes are the
# issuers' own, made so that scanners find them.
_KNOWN: tuple[tuple[str, str], ...] = (
    ("aws_key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("github_token", r"gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("gitlab_token", r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt)-[A-Za-z0-9_-]{20,64}"),
    ("slack_token", r"xox[abeoprs]-(?:\d-)?[A-Za-z0-9]{8,}-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,}"),  # noqa: E501
    ("slack_webhook", r"hooks\.slack\.com/services/(?P<slack>T\w{6,}/B\w{6,}/\w{20,})"),
    ("google_key", r"AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])|GOCSPX-[\w-]{28}|ya29\.[\w-]{30,}"),
    ("stripe_key", r"(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{16,}|whsec_[A-Za-z0-9+/]{32,}"),
    ("api_key", r"sk-(?:proj-|svcacct-|ant-(?:api\d\d-)?|or-v1-)?[A-Za-z0-9_-]{20,}"),
    ("npm_token", r"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    ("pypi_token", r"pypi-AgEIcHlwaS[\w-]{50,}"),
    ("huggingface_token", r"hf_[A-Za-z0-9]{34}(?![A-Za-z0-9])"),
    ("sendgrid_key", r"SG\.[\w-]{22}\.[\w-]{43}"),
    ("digitalocean_token", r"do[opr]_v1_[0-9a-f]{64}"),
    ("shopify_token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("telegram_token", r"\d{8,10}:AA[\w-]{33}(?![\w-])"),
    ("azure_key", r"AccountKey=(?P<azure>[A-Za-z0-9+/]{86}==)"),
    ("jwt", r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}"),
)  # fmt: skip
KINDS = tuple(kind for kind, _ in _KNOWN)
KNOWN = re.compile(
    "(?<![A-Za-z0-9])(?:"
    + "|".join(f"(?P<k{i}>{pattern})" for i, (_, pattern) in enumerate(_KNOWN))
    + ")"
)
# A name that promises a secret, an assignment, and a value of one piece.
ASSIGNED = re.compile(
    r"(?P<name>(?:secret|token|passw(?:or)?d|passwd|pwd|passphrase|credential|bearer|authorization"
    r"|(?:api|auth|access|private|signing|encryption|master|account|service|client|app)[_.-]?key)"
    r"[\w.$-]{0,40})[\"'\]`]{0,2}\s{0,8}(?::=|=>|[:=,(])\s{0,8}"
    r"(?:(?P<quote>[bBrRuUfF@]{0,2}[\"'`])(?:(?:Bearer|Basic|token)\s+)?|(?:Bearer|Basic)\s+)?"
    r"(?P<value>[A-Za-z0-9+/_=.~!@#$%^&*-]{12,200})",
    re.I,
)
# Names of what looks random and is public.
_PUBLIC_NAME = re.compile(
    r"hash|sha\d|sha_|md5|checksum|digest|public|uuid|guid|etag|fingerprint|thumbprint|integrity"
    r"|signature|commit|revision|example|sample|dummy|(?:key|token|secret)[_-]?ids?\Z|url|uri|path",
    re.I,
)
_PLACEHOLDER = re.compile(
    r"example|xxxx|placeholder|your|dummy|changeme|redacted|insert|sample|foobar|deadbeef|fake"
    r"|0123456789|123456789|abcdefgh|(.)\1{4}",
    re.I,
)
_NAMES_ITSELF = re.compile(r"key|secret|token|passw", re.I)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.I)
_BASE64 = re.compile(r"(?=.*[a-z].*[A-Z]|.*[A-Z].*[a-z])[A-Za-z0-9+/]{36,}={0,2}\Z")
_PIECE = re.compile(r"[A-Za-z0-9]+")
_LETTERS_DIGITS = re.compile(r"\d")


def kind_of(match: re.Match[str]) -> tuple[str, int, int]:
    """Returns (kind, first, behind) of what KNOWN matched."""
    kind = next(kind for i, kind in enumerate(KINDS) if match[f"k{i}"] is not None)
    group = {"slack_webhook": "slack", "azure_key": "azure"}.get(kind, 0)
    return kind, match.start(group), match.end(group)


def is_real(kind: str, value: str) -> bool:
    """Tells whether a match of KNOWN is a key and not an example of one."""
    if kind == "slack_webhook":
        value = value.rsplit("/", 1)[-1]
    if _PLACEHOLDER.search(value):
        return False
    # "sk-" begins names in CSS, "npm_" variables: only what is random behind it is a key.
    return kind not in ("api_key", "npm_token", "huggingface_token") or is_random(value)


def is_assigned_secret(match: re.Match[str], before: str) -> bool:
    """Tells whether a match of ASSIGNED is a secret.

    Args:
      match: of ASSIGNED.
      before: what stands before it on the line, for the rest of the name.
    """
    value = match["value"].rstrip(".=-")
    name = re.search(r"[\w.$-]*\Z", before[-60:])
    if _PUBLIC_NAME.search((name[0] if name else "") + match["name"]):
        return False
    if len(value) < 16 or _UUID.match(value) or _PLACEHOLDER.search(value):
        return False
    if _NAMES_ITSELF.search(value):  # PrivateKey = testRSA2048PrivateKey
        return False
    if not match["quote"] and (match[0].find("(") >= 0 or "." in value):
        return False  # code, not a value
    return is_random(value)


def is_random(value: str) -> bool:
    """Tells whether a value looks drawn at random: its longest piece mixes letters and digits.

    Of 36 characters and more of Base64 all count, "+" and "/" left out.
    """
    pieces = _PIECE.findall(value)
    piece = max(pieces, key=len, default="")
    if _BASE64.match(value) and len(piece) >= 6:
        piece = "".join(pieces)
    if len(piece) < 10:
        return False
    digits = len(_LETTERS_DIGITS.findall(piece))
    if not 2 <= digits < len(piece):
        return False
    if len(piece) < 16 and len(value) < 20 and digits < 3:
        return False
    changes = sum(_class(a) != _class(b) for a, b in itertools.pairwise(piece))
    return changes >= 0.22 * (len(piece) - 1) and entropy(piece) >= min(
        3.0, 0.8 * math.log2(len(piece))
    )


def _class(character: str) -> int:
    return 0 if character.isdigit() else 1 if character.islower() else 2


def entropy(text: str) -> float:
    """Returns bits per character, by the frequencies in the text itself."""
    counts = collections.Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
