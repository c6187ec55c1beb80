"""Names of slices, what they stand for, and what is refused."""

import sys

import pytest

from geex_jax.errors import GeexError
from geex_jax.plan import topology
from geex_jax.plan.chips import CHIPS


@pytest.mark.parametrize(
    ("text", "name", "chips", "devices", "hosts"),
    [
        ("v5e:16x16", "v5e:16x16", 256, 256, 64),
        ("v5e-256", "v5e:16x16", 256, 256, 64),
        ("v5litepod-8", "v5e:2x4", 8, 8, 1),
        ("v6e-64", "v6e:8x8", 64, 64, 16),
        ("v4-128", "v4:4x4x4", 64, 64, 16),  # the number counts TensorCores
        ("v5p-128", "v5p:4x4x4", 64, 64, 16),
        ("v5p-256", "v5p:4x4x8", 128, 128, 32),
        ("tpu7x:4x4x4", "tpu7x:4x4x4", 64, 128, 16),
        ("v5e:1x1", "v5e:1x1", 1, 1, 1),
    ],
)
def test_names_that_users_write(text, name, chips, devices, hosts):
    found = topology.parse(text)
    assert (found.name, found.chips, found.devices, found.hosts) == (name, chips, devices, hosts)


def test_slices_multiply_and_are_named():
    found = topology.parse("v5e:16x16", 2)
    assert found.devices == 512 and found.label == "2 x v5e:16x16" and found.hosts == 128


def test_only_a_full_torus_is_wrapped():
    assert topology.parse("v5e:16x16").wrapped == (True, True)
    assert topology.parse("v6e:8x8").wrapped == (False, False)
    assert topology.parse("v4:4x4x4").wrapped == (True, True, True)
    assert topology.parse("v5p:2x2x4").wrapped == (False, False, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v5f:2x2", "did you mean v5e:2x2?"),
        ("v5e:3x3", "not a shape that is sold"),
        ("v5e:32x32", "not a shape that is sold"),  # libtpu would take it
        ("v4-129", "no slice of 129 TensorCores"),
        ("v5e-7", "no slice of 7 chips"),
        ("v5p:2x2", "3 dimensions"),
        ("v5e", "has no shape"),
    ],
)
def test_what_is_refused(text, says):
    with pytest.raises(GeexError, match=text) as caught:
        topology.parse(text)
    assert says in str(caught.value)


def test_no_slices_are_refused():
    with pytest.raises(GeexError, match="--slices 0"):
        topology.parse("v5e:2x2", 0)


def test_every_name_of_the_tables_parses_to_itself():
    for name in topology.known_names():
        assert topology.parse(name).name == name


def test_every_figure_of_a_chip_has_a_source():
    needed = {"bf16", "int8", "hbm", "usable", "bandwidth", "ici", "links", "dcn", "clock", "host"}
    for chip in CHIPS.values():
        assert needed <= set(chip.sources) and all(chip.sources.values())
        assert chip.usable < chip.hbm


def test_libtpu_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GeexError, match=r'pip install "geex-jax\[tpu\]"'):
        topology.open_devices(topology.parse("v5e:2x2"))


@pytest.mark.parametrize(
    "name", ["v5e:1x1", "v5e:2x4", "v4:4x4x4", "v5p:2x2x1", "v6e:8x8", "tpu7x:2x2x1"]
)
def test_libtpu_gives_the_devices_of_the_table(name):
    pytest.importorskip("libtpu")
    found = topology.parse(name)
    devices = topology.open_devices(found)
    assert len(devices) == found.devices
    assert devices[0].device_kind == found.chip.kind
    assert len({d.process_index for d in devices}) == found.hosts
    assert "jax" in sys.modules


def test_several_slices_have_their_numbers():
    pytest.importorskip("libtpu")
    devices = topology.open_devices(topology.parse("v5e:2x2", 2))
    assert sorted(d.slice_index for d in devices) == [0] * 4 + [1] * 4
