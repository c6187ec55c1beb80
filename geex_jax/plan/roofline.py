"""Seconds of a step by arithmetic: compute, memory and networks, and what bounds them.

Nothing here is measured. Every result carries `LABEL`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from geex_jax.plan.topology import Topology

LABEL = "estimate: arithmetic over the compiled program, not measured"


@dataclasses.dataclass(frozen=True)
class Roofline:
    """One call of a program on a topology.

    Attributes:
      ideal: seconds of the model's FLOPs at the chips' peak. compute: of all FLOPs it runs,
        rematerialization included.
      hbm: seconds of the bytes that its instructions move through HBM.
      ici, dcn: seconds of the bytes it sends within and between slices.
      exposed: those of `ici` and `dcn` that the compiler prints as synchronous.
      bound: which of the four is longest.
      mfu_overlap: ideal over the longest of compute, ICI and DCN.
      mfu_exposed: ideal over the longest of compute and asynchronous communication, plus the
        synchronous one.
      mfu_half_ici: the same with half of the ICI rate, as without wraparound.
      mfu_memory: ideal over the longest of all four.
      label: what these numbers are.
    """

    ideal: float
    compute: float
    hbm: float
    ici: float
    dcn: float
    exposed: float
    bound: str
    mfu_overlap: float
    mfu_exposed: float
    mfu_half_ici: float
    mfu_memory: float
    label: str = LABEL

    @property
    def seconds(self) -> tuple[float, float]:
        """Of a step: from perfect overlap of everything to synchronous collectives exposed."""
        longest = max(self.compute, self.hbm, self.ici, self.dcn)
        return longest, max(longest, self.ideal / self.mfu_exposed if self.mfu_exposed else longest)


def roofline(
    topology: Topology,
    model_flops: float,
    flops: float,
    hbm_bytes: float,
    collectives: Iterable[Mapping[str, Any]],
    int8_flops: float = 0.0,
) -> Roofline:
    """The roofline of one call.

    Args:
      topology: chips and their number.
      model_flops, flops, int8_flops: of all devices together; see `flops.Count`.
      hbm_bytes: of one device.
      collectives: dicts of `collectives.Collective`.
    """
    chip = topology.chip
    ideal = model_flops / topology.chips / chip.bf16
    compute = (flops - int8_flops) / topology.chips / chip.bf16
    compute += int8_flops / topology.chips / chip.int8
    hbm = hbm_bytes * chip.devices / chip.bandwidth
    times = {True: [0.0, 0.0], False: [0.0, 0.0]}  # asynchronous -> [ici, dcn]
    for one in collectives:
        ici, dcn = seconds_of(topology, one)
        times[bool(one["asynchronous"])][0] += ici
        times[bool(one["asynchronous"])][1] += dcn
    ici, dcn = (times[True][i] + times[False][i] for i in (0, 1))
    exposed = times[False][0] + times[False][1]

    def mfu(slower: float) -> float:
        hidden = max(compute, times[True][0] * slower, times[True][1])
        total = hidden + times[False][0] * slower + times[False][1]
        return ideal / total if total else 0.0

    longest = max(compute, ici, dcn)
    names = {"compute": compute, "HBM": hbm, "ICI": ici, "DCN": dcn}
    return Roofline(
        ideal, compute, hbm, ici, dcn, exposed, max(names, key=lambda n: names[n]),
        ideal / longest if longest else 0.0, mfu(1.0), mfu(2.0),
        ideal / max(longest, hbm) if max(longest, hbm) else 0.0,
    )  # fmt: skip


def seconds_of(topology: Topology, one: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds that a collective's runs take on (ICI, DCN).

    A permute sends over one link, other collectives over all of a chip.
    """
    chip = topology.chip
    rate = chip.ici / chip.devices
    if one["kind"] == "collective-permute":
        rate /= chip.links
    return (
        one["ici"] * one["count"] / rate,
        one["dcn"] * one["count"] * chip.devices / chip.dcn,
    )
