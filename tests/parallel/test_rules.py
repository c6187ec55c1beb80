"""The table of shardings and the mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from geex_jax.errors import GeexError
from geex_jax.models import PRESETS, Transformer
from geex_jax.parallel import (
    current_ways,
    fitting_spec,
    make_mesh,
    parse_mesh,
    partition_spec,
    path_of,
    shardings,
    use_mesh,
)


@pytest.mark.parametrize(
    ("path", "ndim", "spec"),
    [
        ("embedding/tokens", 2, P("tensor", "fsdp")),
        ("layers/attention/query/kernel", 3, P(None, "fsdp", "tensor")),
        ("opt_state/1/0/mu/layers/mlp/down/kernel", 3, P(None, "tensor", "fsdp")),
        ("top_query/layer/mlp/up/bias", 1, P("tensor")),
        ("layers/mlp_norm/scale", 2, P(None, None)),
        ("layers/mlp/up/kernel_int8", 3, P(None, "tensor", "fsdp")),
        ("layers/attention/output/kernel_int4", 3, P(None, "fsdp", "tensor")),
        ("layers/attention/output/kernel_scale", 2, P(None, None)),
        ("top_query/positions", 2, P(None, "fsdp")),
    ],
)
def test_table(path, ndim, spec):
    assert partition_spec(path, ndim) == spec


def test_every_parameter_of_every_preset_has_a_rule():
    for config in PRESETS.values():
        shapes = jax.eval_shape(
            Transformer(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
        )["params"]
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
            assert len(partition_spec(path_of(path), leaf.ndim)) == leaf.ndim


def test_an_unmatched_parameter_is_an_error():
    with pytest.raises(GeexError, match="no sharding rule for parameter layers/lora/kernel_a"):
        partition_spec("layers/lora/kernel_a", 3)
    with pytest.raises(GeexError, match="no sharding rule"):
        partition_spec("layers/subquery/kernel", 3)


def test_a_dimension_that_does_not_divide_is_named():
    mesh = make_mesh({"tensor": 8})
    tree = {"embedding": {"tokens": jax.ShapeDtypeStruct((100, 64), jnp.float32)}}
    with pytest.raises(GeexError, match=r"embedding/tokens \(100, 64\) .* tensor=8"):
        shardings(mesh, tree)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"fdsp": 8}, "unknown mesh axis 'fdsp'; did you mean fsdp"),
        ({"data": 16}, "does not fit 8 devices"),
        ({"data": 3, "fsdp": -1}, "does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, "at most one of them -1"),
        ({"data": 0}, "positive"),
    ],
)
def test_meshes_that_cannot_be(sizes, message):
    with pytest.raises(GeexError, match=message):
        make_mesh(sizes)


def test_the_rest_goes_to_the_open_axis():
    sizes = {"data": 2, "fsdp": 4, "sequence": 1, "tensor": 1}
    assert dict(make_mesh({"data": 2, "fsdp": -1}).shape) == sizes


@dataclasses.dataclass(frozen=True)
class Chip:
    """What of a TPU chip decides its place on a mesh."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "none"
    device_kind: str = "none"


def test_data_runs_across_slices_and_the_rest_stays_within():
    chips = [Chip(i, slice_index=i % 2) for i in range(8)]  # listed turn by turn
    devices = make_mesh({"data": 2, "fsdp": 2, "tensor": 2}, chips).devices
    slices = np.vectorize(lambda chip: chip.slice_index)(devices)
    assert (slices[0] == slices[0].flat[0]).all() and (slices[1] == 1 - slices[0].flat[0]).all()
    four = make_mesh({"data": 4, "fsdp": 2}, chips).devices
    assert [chip.slice_index for chip in four[:, 0, 0, 0]] == [0, 0, 1, 1]
    with pytest.raises(GeexError, match=r"mesh\.data=1 does not divide over 2 slices"):
        make_mesh({"fsdp": -1}, chips)


def test_current_ways_are_those_of_the_mesh_in_use():
    assert current_ways("batch", "length") == ()
    with use_mesh(make_mesh({"fsdp": 2, "sequence": 2, "tensor": 2})):
        assert current_ways("batch") == ("fsdp",)
        assert current_ways("batch", "length", "embed") == ("fsdp", "sequence")
        assert current_ways("length", "residual_length") == ("sequence", "tensor")


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("4x2", {"fsdp": 4, "tensor": 2}),
        ("1x8", {"fsdp": 1, "tensor": 8}),
        ("fsdp=4,tensor=2", {"fsdp": 4, "tensor": 2}),
        ("tensor=2,data=3", {"data": 3, "tensor": 2}),
        ("data=1", {"data": 1}),
    ],
)
def test_meshes_in_words(text, sizes):
    assert parse_mesh(text) == sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenser=2", "unknown mesh axis 'tenser' in 'tenser=2'; did you mean tensor"),
        ("fsdp=0", "mesh 'fsdp=0'; write fsdp=4,tensor=2, or 4x2"),
        ("0x2", "mesh '0x2'"),
        ("fsdp=-1", "mesh 'fsdp=-1'"),
        ("fsdp=2,fsdp=4", "mesh 'fsdp=2,fsdp=4'"),
        ("fsdp", "mesh 'fsdp'"),
        ("4x2x1", "unknown mesh axis '4x2x1'"),
        ("", "unknown mesh axis ''"),
    ],
)
def test_words_that_are_no_mesh(text, message):
    with pytest.raises(GeexError) as error:
        parse_mesh(text)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("path", "shape", "sizes", "spec"),
    [
        ("embedding/tokens", (264, 32), {"fsdp": 2, "tensor": 4}, P("tensor", "fsdp")),
        ("embedding/tokens", (263, 32), {"fsdp": 2, "tensor": 4}, P(None, "fsdp")),
        ("embedding/tokens", (263, 31), {"fsdp": 2, "tensor": 4}, P(None, None)),
        ("embedding/tokens", (263, 32), {}, P("tensor", "fsdp")),
        ("layers/mlp/up/kernel", (3, 32, 63), {"fsdp": 8, "tensor": 2}, P(None, "fsdp", None)),
        ("layers/mlp/up/bias", (3, 63), {"data": 8}, P(None, "tensor")),
        ("step", (), {"fsdp": 8}, P()),
    ],
)
def test_dimensions_that_do_not_divide_stay_whole(path, shape, sizes, spec):
    assert fitting_spec(path, shape, sizes, uneven=True) == spec


def test_uneven_dimensions_are_refused_unless_allowed():
    with pytest.raises(GeexError, match=r"embedding/tokens \(263, 32\) .* axis tensor=4"):
        fitting_spec("embedding/tokens", (263, 32), {"tensor": 4})
    assert fitting_spec("embedding/tokens", (264, 32), {"tensor": 4}) == P("tensor", "fsdp")
