"""Causal attention with segments, grouped heads and a sliding window: one function, many kernels.

| implementation | where | how |
|---|---|---|
| xla | anywhere | plain jnp, the reference: scores [T, T] exist |
| splash | TPU; elsewhere interpreted, for tests | Pallas, in tiles, fused backward |
| cudnn | NVIDIA GPU, 16 bits | cuDNN's flash attention; segments as a mask [T, T] without heads |
| ring | a mesh that splits the length | blocks of keys travel around the devices |

Kernels run on each device's own rows and heads by `shard_map`; which mesh axes split those is told
by flax's logical axis rules, for the axes "batch", "length" and "heads".
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, PartitionSpec

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.kernels import plain, splash

Axes = tuple[str, ...]
CHOICES = ("auto", "xla", "splash", "cudnn")


class MeshCut(NamedTuple):
    """The mesh in context, its axes not yet split by hand, and those of rows, length and heads."""

    mesh: Any
    free: frozenset[str]
    batch: Axes
    length: Axes
    heads: Axes

    def ways(self, axes: Axes) -> int:
        """Parts that these mesh axes split something into."""
        return math.prod(self.mesh.shape[a] for a in axes)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a query [B, T, H, W] divides."""
        cuts = (self.batch, self.length, self.heads)
        return all(size % self.ways(a) == 0 for size, a in zip(shape[:3], cuts, strict=True))


def mesh_cut() -> MeshCut:
    """How the mesh in context, if any, splits rows, length and heads."""
    mesh = jax.sharding.get_abstract_mesh()
    # Inside someone's shard_map, what is already split counts no more.
    free = frozenset(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind != AxisType.Manual
    )
    spec = nn.logical_to_mesh_axes(("batch", "length", "heads")) or (None, None, None)

    def axes(entry: Any) -> Axes:
        names = (entry,) if isinstance(entry, str) else entry
        return tuple(a for a in names if a in free) if isinstance(names, tuple) else ()

    return MeshCut(mesh, free, *(axes(entry) for entry in spec))


_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced inside shall run on any platform: every kernel is its plain `jnp` function."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def platform() -> str:
    """The platform that is traced for: that of the mesh in context, else the default backend.

    A mesh of an ahead-of-time topology has TPU devices where the default backend is a CPU. Inside
    `portable` it is "any".
    """
    if _portable.get():
        return "any"
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    name = getattr(device, "platform", None)
    if name is None and "TPU" in getattr(device, "device_kind", ""):  # jax 0.8 has no platform
        name = "tpu"
    name = name or jax.default_backend()
    return "gpu" if name in ("cuda", "rocm") else name


def _cudnn_fits(shape: Sequence[int], dtype: Any) -> bool:
    # What jax's own checks would refuse at lowering, asked before: types, widths, lengths, library.
    if jnp.dtype(dtype).itemsize != 2 or shape[3] % 8 or shape[3] > 128 or shape[1] % 2:
        return False
    try:
        from jax._src.lib import cuda_versions  # no public way to ask

        found = cuda_versions is not None and cuda_versions.cudnn_get_version() >= 8904
        return found and float(jax.local_devices(backend="gpu")[0].compute_capability) >= 8.0
    except (ImportError, RuntimeError, AttributeError):
        return False


def choose(implementation: str, shape: Sequence[int], dtype: Any) -> str:
    """The implementation that `attention` runs: "xla", "splash", "cudnn" or "ring".

    "auto" takes the ring where the mesh splits the length; splash on TPUs where T is a multiple of
    128 and W of 128, or 64 (padded); cuDNN on GPUs where it is found and takes the shape; and xla
    for all else, so for everything on CPUs. To be asked while tracing, inside the mesh's context.

    Args:
      implementation: "auto" or a wish.
      shape: of the query, [B, T, H, W].
      dtype: of the query.

    Raises:
      GeexError: a wish that cannot be met.
    """
    if implementation not in CHOICES:
        raise GeexError(
            f"attention = {implementation!r} is not known", did_you_mean(implementation, CHOICES)
        )
    if implementation == "xla":
        return "xla"
    cut, where, bits = mesh_cut(), platform(), jnp.dtype(dtype)
    auto = implementation == "auto"
    if not cut.fits(shape):
        if auto:
            return "xla"
        raise GeexError(
            f"attention = {implementation!r}: {shape[0]} rows, length {shape[1]} and {shape[2]} "
            f"heads do not divide over mesh axes of {cut.ways(cut.batch)}, "
            f"{cut.ways(cut.length)} and {cut.ways(cut.heads)}",
            "change batch or mesh, or set attention to auto",
        )
    if cut.ways(cut.length) > 1:
        return "ring"
    if auto:
        if where == "tpu" and bits in (jnp.bfloat16, jnp.float32):
            regular = shape[1] % splash.LANES == 0 and (
                shape[3] % splash.LANES == 0 or shape[3] == 64
            )
            return "splash" if regular else "xla"
        return "cudnn" if where == "gpu" and _cudnn_fits(shape, bits) else "xla"
    if implementation == "splash":
        if where == "gpu" or bits == jnp.float16:
            raise GeexError(
                f"attention = 'splash' does not run on {where} in {bits.name}",
                "it needs a TPU and bfloat16 or float32; set attention to auto",
            )
    elif where != "gpu" or not _cudnn_fits(shape, bits):
        raise GeexError(
            f"attention = 'cudnn' does not run on {where} in {bits.name} with a head of {shape[3]}",
            "it needs an NVIDIA GPU, cuDNN, 16 bits and heads up to 128; set attention to auto",
        )
    return implementation


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None = None,
    *,
    window: int | None = None,
    implementation: str = "auto",
) -> jax.Array:
    """Causal softmax(q k^T / sqrt(W)) v, with the softmax in float32.

    The parts that a backward pass needs bear the checkpoint name "context".

    Args:
      query: [B, T, H, W], of all devices together.
      key, value: [B, T, K, W], H a multiple of K.
      segment_ids: int32 [B, T]; attention stays within equal ids. Padding is a segment like any
        other (0), so that its rows are numbers. None: one segment.
      window: key j is seen from i if i - window < j <= i.
      implementation: see `choose`.

    Returns:
      [B, T, H, W] in the query's dtype.

    Raises:
      GeexError: see `choose`.
    """
    name = choose(implementation, query.shape, query.dtype)
    if name == "xla":
        mask = plain.causal_mask(query.shape[1], segment_ids, window)
        return plain.dot_product_attention(query, key, value, mask)[0]
    cut = mesh_cut()
    run = functools.partial(_run, name=name, window=window, cut=cut, interpret=platform() == "cpu")
    if not cut.free or cut.mesh.size == 1:
        return run(query, key, value, segment_ids)
    heads = cut.ways(cut.heads)
    if key.shape[2] % heads:  # a device has all that its query heads need
        key, value = (jnp.repeat(x, query.shape[2] // x.shape[2], axis=2) for x in (key, value))
    if segment_ids is None:
        segment_ids = jnp.ones(query.shape[:2], jnp.int32)
    place = PartitionSpec(cut.batch or None, cut.length or None, cut.heads or None, None)
    return jax.shard_map(
        run,
        in_specs=(place, place, place, PartitionSpec(*place[:2])),
        out_specs=place,
        axis_names=cut.free,
        check_vma=False,  # Pallas calls do not say over which axes they vary
    )(query, key, value, segment_ids)


def _run(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    *,
    name: str,
    window: int | None,
    cut: MeshCut,
    interpret: bool,
) -> jax.Array:
    # One device's part.
    if name == "ring":
        from geex_jax.kernels.ring import ring_attention

        return ring_attention(query, key, value, segment_ids, cut.length, window=window)
    if name == "splash":
        return splash.splash_attention(query, key, value, segment_ids, window, interpret)
    return _cudnn(query, key, value, segment_ids, window)


def _cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    window: int | None,
) -> jax.Array:
    # cuDNN knows causality and windows, but no segments: these are a mask [B, 1, T, T].
    local = None if window is None else (window - 1, 0)
    mask = None
    if segment_ids is not None:
        mask, local = plain.causal_mask(query.shape[1], segment_ids, window), None
    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        is_causal=True,
        local_window_size=local,
        implementation="cudnn",
    )
    return checkpoint_name(out, splash.CONTEXT)
