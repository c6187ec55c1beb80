"""Recall and precision of the secrets stage, on secrets and look-alikes planted in real code.

    python -m geex_jax.benchmark.secrets_bench --input /usr/lib/python3

Secrets are drawn from a seed in their issuers' formats and planted as statements between lines of
real files, in templates of the file's language. Look-alikes (hashes, UUIDs, versions, base64
assets, example addresses, decorators) are planted in the same way. What the stage finds in the
files themselves, before planting, is printed too: nobody has labelled it, so it counts neither for
nor against. The templates were written by those who wrote the rules; so take the figures as an
upper bound.
"""

from __future__ import annotations

import argparse
import base64
import collections
import random
import string
import uuid
from collections.abc import Callable

from geex_jax.data.stages.secrets import Found, Secrets
from geex_jax.errors import GeexError
from geex_jax.tokenizers.corpus import read_sources

_WORD = string.ascii_letters + string.digits
_URL64 = _WORD + "-_"
_BASE64 = _WORD + "+/"
_HEX = "0123456789abcdef"


def _draw(r: random.Random, alphabet: str, count: int) -> str:
    return "".join(r.choices(alphabet, k=count))


def _jwt(r: random.Random) -> str:
    body = f'{{"sub":"{_draw(r, string.digits, 10)}","iat":{r.randint(10**9, 2 * 10**9)}}}'
    parts = (base64.urlsafe_b64encode(x.encode()).decode() for x in ('{"alg":"HS256"}', body))
    return ".".join([*(p.rstrip("=") for p in parts), _draw(r, _URL64, 43)])


def _public_ipv4(r: random.Random) -> str:
    first = r.choice([*range(12, 100), *range(129, 169), *range(176, 191), *range(204, 223)])
    return ".".join(map(str, (first, *(r.randint(1, 254) for _ in range(3)))))


def _email(r: random.Random) -> str:
    names = ("anna", "li.wei", "j.mueller", "olu", "sofia-r", "kumar", "t_sato", "petrov")
    hosts = ("gmail.com", "uni-bonn.de", "mail.ru", "acme-tools.io", "cs.kit.ac.jp", "orange.fr")
    return f"{r.choice(names)}{r.choice(['', str(r.randint(1, 99))])}@{r.choice(hosts)}"


# kind -> what draws one; the statement around it is drawn from TEMPLATES or is a line of its own.
SECRETS: dict[str, Callable[[random.Random], str]] = {
    "AWS key id": lambda r: "AKIA" + _draw(r, string.ascii_uppercase + "234567", 16),
    "AWS secret": lambda r: _draw(r, _BASE64, 40),
    "GitHub": lambda r: r.choice(["ghp_", "gho_", "ghs_"]) + _draw(r, _WORD, 36),
    "GitHub fine-grained": lambda r: f"github_pat_{_draw(r, _WORD, 22)}_{_draw(r, _WORD, 59)}",
    "GitLab": lambda r: "glpat-" + _draw(r, _URL64, 20),
    "Slack": lambda r: "xoxb-" + "-".join((*(_draw(r, string.digits, 12) for _ in "ab"), _draw(r, _WORD, 24))),  # noqa: E501
    "Google": lambda r: "AIza" + _draw(r, _URL64, 35),
    "Stripe": lambda r: "sk_live_" + _draw(r, _WORD, 24),
    "OpenAI-like": lambda r: r.choice(["sk-", "sk-proj-"]) + _draw(r, _WORD, 48),
    "JWT": _jwt,
    "assigned base62": lambda r: _draw(r, _WORD, r.choice([20, 24, 32, 40])),
    "assigned hex": lambda r: _draw(r, _HEX, r.choice([32, 40, 64])),
    "URL password": lambda r: _draw(r, _WORD, r.choice([8, 12, 16])),
    "private key": lambda r: "MII" + _draw(r, _BASE64, 61),
    "e-mail": _email,
    "IPv4": _public_ipv4,
    "IPv6": lambda r: ":".join(["2a01", *(_draw(r, "123456789abcdef", 4) for _ in range(7))]),
}  # fmt: skip
LOOK_ALIKES: dict[str, Callable[[random.Random], str]] = {
    "hash": lambda r: f'{r.choice(["md5", "sha1", "sha256", "checksum", "commit"])} = "{_draw(r, _HEX, r.choice([32, 40, 64]))}"',  # noqa: E501
    "UUID": lambda r: f'token_id = "{uuid.UUID(int=r.getrandbits(128), version=4)}"',
    "version": lambda r: f'version = "{r.randint(1, 99)}.{r.randint(0, 99)}.{r.randint(0, 99)}.{r.randint(0, 99)}"',  # noqa: E501
    "package version": lambda r: f'depends("lodash@{r.randint(1, 9)}.{r.randint(0, 20)}.{r.randint(0, 20)}")',  # noqa: E501
    "base64 asset": lambda r: f'icon = "data:image/png;base64,iVBORw0KGgo{_draw(r, _BASE64, 80)}=="',  # noqa: E501
    "test vector": lambda r: f'vectors = ["{_draw(r, _HEX, 64)}", "{_draw(r, _HEX, 64)}"]',
    "integrity": lambda r: f'integrity = "sha512-{_draw(r, _BASE64, 86)}=="',
    "private range": lambda r: f'host = "10.{r.randint(0, 255)}.{r.randint(0, 255)}.7"',
    "documentation range": lambda r: f'peer = "192.0.2.{r.randint(1, 254)}"',
    "loopback v6": lambda r: 'bind = "fe80::1", "::1", "2001:db8::42"',
    "example mail": lambda r: f'mail = "user{r.randint(1, 9)}@example.com"',
    "git remote": lambda r: 'remote = "git@github.com:owner/project.git"',
    "image": lambda r: 'logo = "images/logo@2x.png"',
    "matrix product": lambda r: "y = x @ w.T + b@c.mean",
    "variable": lambda r: f"token = get_token(user_{r.randint(10, 99)}, secret_name_v2)",
    "example key": lambda r: 'key = "AKIAIOSFODNN7EXAMPLE"',
    "placeholder": lambda r: 'api_key = "your-api-key-goes-here-123"',
    "long name": lambda r: f"password_field = LoginFormPasswordFieldV{r.randint(2, 9)}Widget",
    "section": lambda r: f"see 23.{r.randint(1, 9)}.{r.randint(1, 9)}.{r.randint(1, 20)} of the standard",  # noqa: E501
    "object id": lambda r: f'oid = "2.5.29.{r.randint(1, 49)}"',
}  # fmt: skip
_NAMES = ("api_key", "apiKey", "SECRET_TOKEN", "client_secret", "auth_token", "DB_PASSWORD")
TEMPLATES = ('{name} = "{value}"', "{name}: '{value}',", '"{name}": "{value}"', "{name}={value}",
             'os.environ["{name}"] = "{value}"', 'set("{name}", "{value}");')  # fmt: skip


def statement(kind: str, value: str, r: random.Random) -> str:
    """Returns a line (for a private key, lines) of code that holds the secret."""
    if kind == "URL password":
        return f'url = "postgres://admin:{value}@db.internal-host.net:5432/shop"'
    if kind == "private key":
        begin, end = ("-----" + word + " RSA PRIVATE KEY-----" for word in ("BEGIN", "END"))
        return f'pem = """{begin}\n{value}\n{end}"""'
    if kind in ("e-mail", "IPv4", "IPv6", "JWT"):
        return r.choice(['contact = "{}"', "# see {} for that", "connect('{}', 80)"]).format(value)
    name = r.choice(_NAMES) if kind != "AWS secret" else "aws_secret_access_key"
    return r.choice(TEMPLATES).format(name=name, value=value)


def plant(
    text: str, seed: int
) -> tuple[str, list[tuple[str, int, int]], list[tuple[str, int, int]]]:
    """Returns (text, secrets, look-alikes), the latter as (kind, first, behind) in bytes.

    Every kind is planted once, behind lines that the seed draws.
    """
    r = random.Random(seed)
    lines = text.split("\n")
    planted: dict[int, list[tuple[bool, str, str, str]]] = collections.defaultdict(list)
    for kind, draw in SECRETS.items():
        value = draw(r)
        planted[r.randrange(len(lines))].append((True, kind, value, statement(kind, value, r)))
    for kind, draw in LOOK_ALIKES.items():
        line = draw(r)
        planted[r.randrange(len(lines))].append((False, kind, line, line))
    out = bytearray()
    spans: tuple[list, list] = ([], [])
    for number, line in enumerate(lines):
        out += line.encode() + b"\n"
        for secret, kind, value, code in planted[number]:
            first = len(out) + len(code[: code.index(value)].encode())
            spans[0 if secret else 1].append((kind, first, first + len(value.encode())))
            out += code.encode() + b"\n"
    return out.decode(), spans[0], spans[1]


def measure(texts: list[str], seed: int = 0) -> dict:
    """Returns counts: by kind (found, planted) and (flagged, planted), and natural findings."""
    stage = Secrets()
    found: dict[str, list[int]] = {kind: [0, 0] for kind in SECRETS}
    wrong: dict[str, list[int]] = {kind: [0, 0] for kind in LOOK_ALIKES}
    natural: collections.Counter[str] = collections.Counter()
    elsewhere = 0
    for number, text in enumerate(texts):
        own = stage.find(text.encode())
        natural.update(f.kind for f in own)
        planted, secrets, look_alikes = plant(text, seed + number)
        hits = stage.find(planted.encode())
        for kind, first, behind in secrets:
            found[kind][0] += any(h.first <= first and h.behind >= behind for h in hits)
            found[kind][1] += 1
        for kind, first, behind in look_alikes:
            wrong[kind][0] += _touches(hits, first, behind)
            wrong[kind][1] += 1
        spans = secrets + look_alikes
        elsewhere += sum(not any(h.first < b and h.behind > a for _, a, b in spans) for h in hits)
        elsewhere -= len(own)
    right, false = (sum(n for n, _ in table.values()) for table in (found, wrong))
    return {
        "files": len(texts),
        "bytes": sum(len(text.encode()) for text in texts),
        "found": found,
        "wrong": wrong,
        "natural": dict(natural),
        "elsewhere": elsewhere,
        "recall": right / max(1, sum(n for _, n in found.values())),
        "precision": right / max(1, right + false),
    }


def _touches(hits: list[Found], first: int, behind: int) -> bool:
    return any(h.first < behind and h.behind > first for h in hits)


def main(arguments: list[str] | None = None) -> None:
    """Prints precision and recall, by kind."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--input", nargs="+", required=True, metavar="DIR", help="real code")
    parser.add_argument("--max-megabytes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    texts = [text for text in read_sources(args.input, args.max_megabytes) if text]
    if not texts:
        raise GeexError("no source code below --input", "name a folder with code")
    result = measure(texts, args.seed)
    print(f"{result['files']} files, {result['bytes'] / 1e6:.1f} MB, every kind planted in each")
    print(f"recall {result['recall']:.4f}, precision {result['precision']:.4f} (planted only)")
    for title, table in (("secret", result["found"]), ("look-alike", result["wrong"])):
        for kind, (hit, planted) in table.items():
            print(f"  {title:<10} {kind:<20} found {hit:>5} of {planted}")
    print(f"in the code itself, not labelled: {result['natural'] or 'nothing'}")


if __name__ == "__main__":
    main()
