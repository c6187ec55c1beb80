"""Slices by the names that users and libtpu give them, and their devices without a TPU."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
import sys
from typing import Any

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.plan.chips import CHIPS, Chip

# What libtpu reads when it is loaded. One accelerator type serves all generations; without
# ALLOW_MULTIPLE_LIBTPU_LOAD a second process aborts on the first one's lock file.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "JAX_PLATFORMS": "cpu",
}

# Generations as users write them. Behind v4- and v5p- stands the number of TensorCores, two a
# chip; behind the others the number of chips.
ALIASES = {
    "v4": "v4", "v5e": "v5e", "v5litepod": "v5e", "v5lite": "v5e", "v5p": "v5p",
    "v6e": "v6e", "trillium": "v6e", "tpu7x": "tpu7x", "v7x": "tpu7x", "ironwood": "tpu7x",
}  # fmt: skip
COUNTS_CORES = ("v4", "v5p")

# Shapes that are sold, by number of chips; the first is taken for a name by number.
FLAT = {
    1: ["1x1"], 4: ["2x2"], 8: ["2x4"], 16: ["4x4"], 32: ["4x8"], 64: ["8x8"], 128: ["8x16"],
    256: ["16x16"],
}  # fmt: skip
CUBIC = {
    1: ["1x1x1"], 4: ["2x2x1"], 8: ["2x2x2"], 16: ["2x2x4"], 32: ["2x4x4"],
    64: ["4x4x4"], 128: ["4x4x8"], 192: ["4x4x12"], 256: ["4x8x8", "4x4x16"], 384: ["4x8x12"],
    512: ["8x8x8", "4x8x16", "4x4x32"], 768: ["8x8x12"], 1024: ["8x8x16", "4x16x16"],
    1152: ["8x12x12"], 1536: ["8x12x16"], 2048: ["8x16x16"], 4096: ["16x16x16"],
    6144: ["16x16x24"],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice, or several equal ones joined by the data centre's network.

    Attributes:
      chip: the generation.
      shape: chips along each dimension of one slice.
      slices: how many.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """As libtpu and `--topology` write one slice: v5e:16x16."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def label(self) -> str:
        """The name, and how many slices if several."""
        return f"{self.slices} x {self.name}" if self.slices > 1 else self.name

    @property
    def chips(self) -> int:
        """Of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def devices(self) -> int:
        """As JAX counts them, of all slices."""
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """Machines of all slices."""
        return self.slices * max(1, math.prod(self.shape) // math.prod(self.bounds))

    @property
    def bounds(self) -> tuple[int, int, int]:
        """Chips of one host along each dimension; a slice within a machine has one host."""
        if math.prod(self.shape) <= self.chip.host:
            x, y, z = (*self.shape, 1)[:3]
            return x, y, z
        return (2, 2, 1)

    @property
    def wrapped(self) -> tuple[bool, ...]:
        """Dimensions whose ends are joined, so that a ring runs both ways at full rate."""
        cube = self.chip.dimensions == 2 or all(n % 4 == 0 for n in self.shape)
        return tuple(cube and n >= self.chip.wraps for n in self.shape)


def parse(text: str, slices: int = 1) -> Topology:
    """A topology from "v5e:16x16", or from a name by number such as v5litepod-256, v4-128.

    Raises:
      GeexError: an unknown generation, a shape that is not sold, no positive number of slices.
    """
    if slices < 1:
        raise GeexError(f"--slices {slices}", "give a number above 0")
    word = text.strip().lower().replace("tpu ", "").replace("tpu-", "")
    found = re.fullmatch(r"([a-z0-9]+)(?:[:=_](\d+(?:x\d+){1,2})|-(\d+))", word)
    generation = found[1] if found else re.split(r"[:=_-]", word)[0]
    if generation not in ALIASES:
        raise GeexError(f"unknown TPU {text!r}", did_you_mean(word, known_names()))
    chip = CHIPS[ALIASES[generation]]
    table = CUBIC if chip.dimensions == 3 else FLAT
    if not found:
        raise GeexError(f"topology {text!r} has no shape", did_you_mean(word, _names(chip)))
    if found[3]:
        return Topology(chip, _by_number(text, chip, int(found[3]), table), slices)
    shape = tuple(int(n) for n in found[2].split("x"))
    if len(shape) != chip.dimensions:
        example = next(iter(table.values()))[0]
        raise GeexError(
            f"{text!r}: a {chip.name} slice has {chip.dimensions} dimensions",
            f"write {chip.name}:{example}, for example; {_list(chip)}",
        )
    if not _sold(chip, shape, table):
        raise GeexError(f"{text!r} is not a shape that is sold", _list(chip))
    return Topology(chip, shape, slices)


def _by_number(text: str, chip: Chip, number: int, table: dict) -> tuple[int, ...]:
    per = chip.cores if chip.name in COUNTS_CORES else 1
    chips = number // per
    if number % per or chips not in table or chips > chip.pod:
        counted = "TensorCores, two a chip" if per == 2 else "chips"
        known = ", ".join(f"{chip.name}-{n * per}" for n in table if n <= chip.pod)
        raise GeexError(f"{text!r}: no slice of {number} {counted}", f"choose one of: {known}")
    return tuple(int(n) for n in table[chips][0].split("x"))


def _sold(chip: Chip, shape: tuple[int, ...], table: dict) -> bool:
    name = "x".join(map(str, shape))
    if any(name in names for names in table.values()) and math.prod(shape) <= chip.pod:
        return True
    # Slices of whole cubes can be joined freely along the torus.
    cubes = chip.dimensions == 3 and all(n % 4 == 0 for n in shape)
    return cubes and list(shape) == sorted(shape) and math.prod(shape) <= chip.pod


def _list(chip: Chip) -> str:
    return "choose one of: " + ", ".join(_names(chip))


def _names(chip: Chip) -> list[str]:
    table = CUBIC if chip.dimensions == 3 else FLAT
    return [f"{chip.name}:{s}" for n, shapes in table.items() if n <= chip.pod for s in shapes]


def known_names() -> list[str]:
    """Every topology of the tables, as `--topology` takes it."""
    return [name for chip in CHIPS.values() for name in _names(chip)]


def prepare() -> None:
    """Sets what libtpu and jax read when they are loaded; call before jax is imported."""
    os.environ.update(ENVIRONMENT)


def prepared() -> bool:
    """Whether this process can compile for a TPU that it does not have."""
    if any(os.environ.get(k) != v for k, v in ENVIRONMENT.items()):
        return "jax" not in sys.modules
    jax = sys.modules.get("jax")
    return jax is None or jax.config.jax_platforms == "cpu"


def require_libtpu() -> str:
    """The version of libtpu.

    Raises:
      GeexError: it is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise GeexError(
            "compiling for a TPU needs libtpu, which is not installed",
            'pip install "geex-jax[tpu]", or estimate with --memory-only',
        )
    return importlib.metadata.version("libtpu")


def open_devices(topology: Topology) -> list[Any]:
    """The devices of a topology, for meshes that programs are compiled for; nothing runs on them.

    Raises:
      GeexError: no libtpu, or it knows no such topology.
    """
    require_libtpu()
    prepare()
    from jax.experimental import topologies

    options: dict[str, Any] = {"chips_per_host_bounds": list(topology.bounds)}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as on real v4 slices
    if any(topology.wrapped):
        options["wrap"] = [*topology.wrapped, *[False] * 3][:3]
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    try:
        opened = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name, **options
        )
    except Exception as error:
        first = str(error).splitlines()[0]
        raise GeexError(f"libtpu does not take {topology.name}: {first}") from error
    if len(opened.devices) != topology.devices:
        raise GeexError(
            f"libtpu gives {len(opened.devices)} devices for {topology.label}, "
            f"not {topology.devices}",
            "report this, with the version of libtpu",
        )
    return list(opened.devices)
