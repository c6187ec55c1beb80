"""Public numbers of TPU chips, each with where it comes from.

Rates are per chip; memory and devices are as the compiler sees them: on tpu7x each of the two
TensorCores of a chip is a device with memory of its own, elsewhere a chip is one device.
"""

from __future__ import annotations

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation.

    Attributes:
      name: as `geex plan --topology NAME:SHAPE` and libtpu write it.
      kind: what `device_kind` and users also call it.
      bf16, int8: dense FLOP/s (operations/s) per chip.
      hbm: bytes per device. usable: of them, what a program may have.
      bandwidth: HBM bytes/s per chip.
      ici: bytes/s that a chip sends over all its links together, one way.
      links: ICI links of a chip. dimensions: of the torus.
      dcn: bytes/s per chip to other slices, over the data centre's network.
      clock: Hz, to turn the compiler's cycles into seconds; derived, not published.
      devices: per chip, as JAX counts them. cores: TensorCores per chip.
      host: chips per host of a slice of several hosts.
      largest: most chips along a dimension. pod: most chips of a slice.
      wraps: a dimension of at least this many chips closes to a ring (0: only the full pod's).
      sources: field -> where its figure comes from.
    """

    name: str
    kind: str
    bf16: float
    int8: float
    hbm: int
    usable: int
    bandwidth: float
    ici: float
    links: int
    dimensions: int
    dcn: float
    clock: float
    devices: int
    cores: int
    host: int
    largest: int
    pod: int
    wraps: int
    sources: dict[str, str]


_DOCS = "Google Cloud TPU documentation, page {}, specification table"
_LINK = (
    "one-way rate of a link x links, as in the book How to Scale Your Model; deliberately below "
    "half of the documentation's bidirectional figure"
)
_CLOCK = "derived from the peak and the number of matrix units; relative use only"
_USABLE = "the compiler's own limit, read from its out-of-memory message"
_GUESS = "from memory, NOT looked up"


def _sources(page: str, **changes: str) -> dict[str, str]:
    docs = _DOCS.format(page)
    base = dict.fromkeys(("bf16", "int8", "hbm", "bandwidth", "links", "host", "pod"), docs)
    return base | {"ici": _LINK, "clock": _CLOCK, "usable": _USABLE} | changes


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(
            "v4", "TPU v4", 275e12, 275e12, 32 * GIB, int(31.25 * GIB), 1200e9, 270e9, 6, 3,
            6.25e9, 1.05e9, 1, 2, 4, 16, 4096, 4,
            _sources(
                "v4", links="3D mesh or torus: 6 links",
                usable=f"32 GiB less 0.75 GiB, {_GUESS}",
                ici="1.1 PB/s all-reduce bandwidth per pod of 4096 chips, same documentation page",
                dcn=f"50 Gbit/s a chip, {_GUESS}",
            ),
        ),
        Chip(
            "v5e", "TPU v5 lite", 197e12, 393e12, 16 * GIB, int(15.75 * GIB), 819e9, 180e9, 4, 2,
            3.125e9, 1.5e9, 1, 1, 8, 16, 256, 16,
            _sources("v5e", dcn="6.4 Tbit/s per pod of 256 chips, same page",
                     host="4 in slices of several hosts as libtpu lays them out; 8 a machine"),
        ),
        Chip(
            "v5p", "TPU v5", 459e12, 918e12, 95 * GIB, int(94.75 * GIB), 2765e9, 540e9, 6, 3,
            6.25e9, 1.75e9, 1, 2, 4, 24, 6144, 4,
            _sources("v5p", dcn="50 Gbit/s a chip, same page", int8=f"twice bf16, {_GUESS}",
                     usable=f"95 GiB less 0.25 GiB, {_GUESS}"),
        ),
        Chip(
            "v6e", "TPU v6 lite", 918e12, 1836e12, 32 * GIB, int(31.25 * GIB), 1638e9, 360e9, 4, 2,
            12.5e9, 1.75e9, 1, 1, 8, 16, 256, 16,
            _sources("v6e", dcn=f"4 x 200 Gbit/s a host of 8 chips, {_GUESS}",
                     usable=f"32 GiB less 0.75 GiB, {_GUESS}"),
        ),
        Chip(
            "tpu7x", "TPU7x", 2307e12, 2307e12, 96 * GIB, int(94.75 * GIB), 7380e9, 540e9, 6, 3,
            12.5e9, 2.0e9, 2, 2, 4, 16, 9216, 4,
            _sources(
                "tpu7x", int8="no int8 figure published; bf16's taken (fp8: 4614 TFLOP/s)",
                hbm=_DOCS.format("tpu7x") + ": 192 GiB a chip, 96 GiB a device",
                bandwidth=f"7380 GB/s, {_GUESS}", ici=f"as v5p (1200 GB/s both ways), {_GUESS}",
                dcn=f"100 Gbit/s a chip, {_GUESS}", clock=_GUESS,
                usable=f"96 GiB less 1.25 GiB, {_GUESS}",
            ),
        ),
    )
}  # fmt: skip
