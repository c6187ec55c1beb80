"""What the quickstart reads: source code found on this machine, and what `xz -9` makes of it."""

from __future__ import annotations

import dataclasses
import glob
import json
import lzma
import os
import pathlib
import sysconfig

from geex_jax.languages import LANGUAGES

MAX_MEGABYTES = 64  # more would take longer to prepare than a few minutes of training can read
EXCLUDED = ("site-packages", "dist-packages")  # taken one by one instead
MAX_PACKAGES = 6  # more make the commands hard to read

# Where source code lies on usual machines, after Python's own.
PLACES = (
    "/usr/lib/node_modules",
    "/usr/local/lib/node_modules",
    "/usr/share/nodejs",
    "/usr/share/javascript",
    "/usr/lib/go*/src",
    "/usr/local/go/src",
    "/usr/share/go*/src",
    "/usr/lib/jvm/*/lib/src",
    "/usr/share/perl*",
    "/usr/share/php*",
    "/usr/include/c++",
    "/usr/include/*-linux-gnu",
    "/usr/include/linux",
    "/usr/include/node",
    "/usr/local/include",
    "/usr/lib/R/library",
)


def find_sources(limit: float = MAX_MEGABYTES) -> list[str]:
    """Folders with source code on this machine, about `limit` MB of it in all.

    Python's standard library comes first, then other languages, then installed packages, which
    are taken one by one, the largest that fit first. Folders named in
    `EXCLUDED` do not count: the stages leave them out.
    """
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    found = [sysconfig.get_path("stdlib")]
    for pattern in PLACES:
        found += [p for p in sorted(glob.glob(pattern)) if os.path.isdir(p)]
    found = [p for p in found if not any(p != q and p.startswith(q + "/") for q in found)]
    total, chosen = 0.0, []
    for path in found:
        size = _source_megabytes(path)
        if size and (total + size <= limit or not chosen):
            total += size
            chosen.append(path)
    sizes = [(_source_megabytes(str(p)), str(p)) for p in packages.glob("[a-z]*") if p.is_dir()]
    taken = 0
    for size, path in sorted(sizes, reverse=True):
        if size >= 0.5 and total + size <= limit and taken < MAX_PACKAGES:
            total, taken = total + size, taken + 1
            chosen.append(path)
    return chosen


def _source_megabytes(folder: str) -> float:
    known = {extension for language in LANGUAGES for extension in language.extensions}
    size = 0
    for top, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f not in EXCLUDED]
        for name in names:
            if os.path.splitext(name)[1].lower() in known:
                path = os.path.join(top, name)
                size += os.stat(path).st_size if os.path.exists(path) else 0
    return size / 1e6


@dataclasses.dataclass
class Compressed:
    """What `xz -9` makes of a language's validation files.

    Attributes:
      size: bytes of the files.
      together: bits per byte with all files as one stream, in which xz learns from each for the
        next: its best case.
      alone: bits per byte file by file, as the model sees them.
    """

    size: int
    together: float
    alone: float


def xz_bits_per_byte(data: pathlib.Path) -> dict[str, Compressed]:
    """Compresses the validation files, per language; "all" sums over the languages."""
    out: dict[str, Compressed] = {}
    sums = [0, 0.0, 0.0]
    for language in LANGUAGES:
        path = data / "validation_text" / f"{language.slug}.jsonl"
        if not path.is_file():
            continue
        texts = [json.loads(line)["text"].encode() for line in path.read_text().splitlines()]
        size = sum(map(len, texts))
        together = 8 * len(lzma.compress(b"".join(texts), preset=9))
        alone = 8 * sum(len(lzma.compress(text, preset=9)) for text in texts)
        out[language.name] = Compressed(size, together / size, alone / size)
        sums = [x + y for x, y in zip(sums, (size, together, alone), strict=True)]
    if sums[0]:
        out["all"] = Compressed(int(sums[0]), sums[1] / sums[0], sums[2] / sums[0])
    return out
