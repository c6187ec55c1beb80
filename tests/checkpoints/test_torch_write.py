"""Checkpoints written without PyTorch: read back bit for bit, by us and by PyTorch."""

import pathlib
import tempfile
import weakref
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.checkpoints import torch_file, torch_write
from geex_jax.errors import GeexError

DTYPES = [
    "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool"
]  # fmt: skip


class Array:
    """A `tensors.Lazy` whose array is in memory already."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def read(self):
        return self.array


def random(shape, dtype="float32", seed=0) -> Array:
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    data = np.random.default_rng(seed).bytes(int(np.prod(shape)) * dtype.itemsize)
    if dtype.name == "bool":
        return Array((np.frombuffer(data, np.uint8) % 2 == 1).reshape(shape))
    return Array(np.frombuffer(data, dtype).reshape(shape))


def check(ours, tree):
    """Arrays have the bits of the tree's leaves; all else is equal and of equal type."""
    assert type(ours) is (np.ndarray if isinstance(tree, Array) else type(tree))
    if isinstance(tree, dict):
        assert list(ours) == list(tree)
        for key, value in tree.items():
            check(ours[key], value)
    elif isinstance(tree, Array):
        assert ours.dtype == tree.dtype and ours.shape == tree.shape
        assert ours.tobytes() == tree.array.tobytes()
    else:
        assert ours == tree


def everything() -> dict:
    """A tree with each dtype in each kind of shape, and each kind of plain value."""
    shapes = {"matrix": (3, 5), "scalar": (), "empty": (2, 0, 3), "one": (1,)}
    return {
        "plain": {"s": "ä\n\0", "i": 1, "big": -(2**70), "f": 0.1, "n": None, "b": True, 7: {}},
        **{d: {k: random(s, d, i) for i, (k, s) in enumerate(shapes.items())} for d in DTYPES},
        "transposed": Array(np.arange(6.0).reshape(2, 3).T),
        "big_endian": Array(np.arange(6, dtype=">i4")),
    }


def test_what_is_written_is_indexed_and_read(tmp_path):
    torch_write.write(tmp_path / "x.pt", everything())
    expected = everything()
    expected["big_endian"] = Array(np.arange(6, dtype="<i4"))
    check(torch_file.read(tmp_path / "x.pt"), expected)
    found = torch_file.index(tmp_path / "x.pt")
    assert found["bfloat16"]["matrix"].name == "bfloat16.matrix"
    for dtype in DTYPES:
        for key, leaf in expected[dtype].items():
            check(found[dtype][key].read(), leaf)


def trees():
    tensors = st.builds(
        random,
        st.lists(st.integers(0, 3), max_size=4).map(tuple),
        st.sampled_from(DTYPES),
        st.integers(0, 99),
    )
    plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    keys = st.text(max_size=5) | st.integers(-(2**40), 2**40)
    return st.recursive(
        tensors | plain, lambda inner: st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )


@settings(max_examples=25, deadline=None)
@given(trees())
def test_any_tree_comes_back(tree):
    with tempfile.TemporaryDirectory() as folder:
        torch_write.write(pathlib.Path(folder) / "x.pt", tree)
        check(torch_file.read(pathlib.Path(folder) / "x.pt"), tree)


@pytest.mark.parametrize("zip64", [False, True])
def test_torch_reads_it(tmp_path, monkeypatch, zip64):
    torch = pytest.importorskip("torch")
    if zip64:
        monkeypatch.setattr(torch_write, "_ZIP64_FROM", 0)
    torch_write.write(tmp_path / "x.pt", everything())
    tree = everything()
    for options in ({"weights_only": True}, {"weights_only": False}, {"mmap": True}):
        loaded = torch.load(tmp_path / "x.pt", **options)
        assert list(loaded) == list(tree) and loaded["plain"] == tree["plain"]
        for dtype in DTYPES:
            for key, leaf in tree[dtype].items():
                tensor = loaded[dtype][key]
                assert tensor.dtype == getattr(torch, dtype) and tensor.shape == leaf.shape
                flat = tensor.reshape(-1).view(torch.uint8)
                assert flat.numpy().tobytes() == leaf.array.tobytes()
        np.testing.assert_array_equal(loaded["transposed"].numpy(), tree["transposed"].array)
        np.testing.assert_array_equal(loaded["big_endian"].numpy(), tree["big_endian"].array)


@pytest.mark.parametrize("zip64", [False, True])
def test_the_file_is_an_aligned_zip_and_always_the_same(tmp_path, monkeypatch, zip64):
    if zip64:
        monkeypatch.setattr(torch_write, "_ZIP64_FROM", 0)
    torch_write.write(tmp_path / "x.pt", everything())
    torch_write.write(tmp_path / "other name.bin", everything())
    data = (tmp_path / "x.pt").read_bytes()
    assert data == (tmp_path / "other name.bin").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        assert archive.testzip() is None  # every CRC fits
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    tree = torch_file.index(tmp_path / "x.pt")
    offsets = [leaf.offset for dtype in DTYPES for leaf in tree[dtype].values()]
    assert len(set(offsets)) > 30 and not any(offset % 64 for offset in offsets)


def test_one_tensor_is_in_memory_at_a_time_and_progress_is_told(tmp_path):
    alive = []

    class Fresh(Array):
        def read(self):
            assert not [1 for earlier in alive if earlier() is not None]
            array = self.array + 1
            alive.append(weakref.ref(array))
            return array

    told = []
    tree = {str(n): Fresh(np.zeros((n, 2), np.int16)) for n in range(4)}
    torch_write.write(tmp_path / "x.pt", tree, told.append)
    assert told == [0, 4, 8, 12] and len(alive) == 4


class Broken(Array):
    def read(self):
        raise OSError("disk on fire")


@pytest.mark.parametrize("before", [None, b"the old file"])
def test_a_failing_leaf_leaves_what_was_there(tmp_path, before):
    if before is not None:
        (tmp_path / "x.pt").write_bytes(before)
    tree = {"good": random((4,)), "bad": Broken(np.zeros(3))}
    with pytest.raises(OSError, match="disk on fire"):
        torch_write.write(tmp_path / "x.pt", tree)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (Array(np.zeros(2, np.uint32)), r"a\.b is of uint32; PyTorch files hold float32, "),
        (Array(np.array(["x"])), r"a\.b is of str"),
        (object(), r"a\.b is of type object, which no checkpoint holds"),
        ([1, 2], r"a\.b is of type list, which no checkpoint holds"),
        (1 << 3000, r"a\.b is of type int, which no checkpoint holds"),
        ({(1, 2): 3}, r"a\.b\.\(1, 2\) has a tuple as key"),
    ],
)
def test_leaves_that_a_checkpoint_cannot_hold(tmp_path, leaf, message):
    with pytest.raises(GeexError, match=message):
        torch_write.write(tmp_path / "x.pt", {"a": {"b": leaf}})
    assert not list(tmp_path.iterdir())


def test_a_leaf_that_breaks_its_promise(tmp_path):
    leaf = Array(np.zeros((2, 3), np.float32))
    leaf.array = np.zeros((3, 2), np.float32)
    with pytest.raises(GeexError, match=r"w promised float32\[2, 3\] and read as float32\[3, 2\]"):
        torch_write.write(tmp_path / "x.pt", {"w": leaf})
    assert not list(tmp_path.iterdir())
