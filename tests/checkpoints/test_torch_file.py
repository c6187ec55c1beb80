"""PyTorch files read without PyTorch: what is found, and what hostile or broken files get."""

import argparse
import collections
import os
import pathlib
import pickle
import random
import time
import zipfile

import numpy as np
import pytest

from geex_jax.checkpoints import torch_file, torch_write
from geex_jax.checkpoints.tensors import InMemory, Tensor
from geex_jax.errors import GeexError

FIXTURES = [
    "codegeex/codegeex_tiny.pt",
    "codegeex/codegeex_tiny_qkv.pt",
    "codegeex/mp2/mp_rank_00_model_states.pt",
    "hf/codegeex2_chatglm/pytorch_model-00001-of-00002.bin",
    "hf/gpt_neox_sharded_bin/pytorch_model-00003-of-00003.bin",
    "hf/incoder_bin/pytorch_model.bin",
]


def leaves(tree, prefix=""):
    """Yields (dotted path, leaf) of nested dicts."""
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict):
            yield from leaves(value, name)
        else:
            yield name, value


@pytest.mark.parametrize("name", FIXTURES)
def test_official_files_as_torch_reads_them(shared, name):
    torch = pytest.importorskip("torch")
    path = shared / "fixtures" / name
    expected = dict(leaves(torch.load(path, weights_only=True)))
    indexed, read = dict(leaves(torch_file.index(path))), dict(leaves(torch_file.read(path)))
    assert list(indexed) == list(read) == list(expected) and len(read) > 2
    for key, tensor in expected.items():
        bits = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert indexed[key].name == key and indexed[key].dtype == read[key].dtype
        assert str(tensor.dtype) == f"torch.{read[key].dtype}"
        assert tuple(tensor.shape) == indexed[key].shape == read[key].shape
        assert indexed[key].read().tobytes() == read[key].tobytes() == bits


def test_tensors_of_every_stride(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    odd = {
        "whole": base,
        "transposed": base.T,
        "slice": base[1:, ::2],
        "row": base[2],
        "item": base[3, 5],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "permuted": torch.arange(24, dtype=torch.int16).reshape(2, 3, 4).permute(2, 0, 1),
        "other dtype": base.clone().view(torch.int32),
        "column of one": torch.arange(3.0)[:, None].T,
        "untyped": base.to(torch.uint16),
        "parameter": torch.nn.Parameter(base.half().float()),
        "complex": base.to(torch.complex64),
    }
    odd["parameter"].note = "kept by torch with the parameter"
    for protocol in (2, 4):
        torch.save(odd, tmp_path / "odd.pt", pickle_protocol=protocol)
        found, mapped = (f(tmp_path / "odd.pt") for f in (torch_file.index, torch_file.read))
        for key, tensor in odd.items():
            np.testing.assert_array_equal(found[key].read(), tensor.detach().numpy())
            np.testing.assert_array_equal(mapped[key], tensor.detach().numpy())
            assert found[key].dtype == mapped[key].dtype == tensor.detach().numpy().dtype
    assert found["transposed"].strides == (1, 6)
    assert found["transposed"].offset == found["whole"].offset == found["row"].offset - 48
    assert all(found[k].strides is None for k in ("whole", "row", "item", "column of one"))


def test_what_else_checkpoints_hold_is_inert(tmp_path):
    torch = pytest.importorskip("torch")
    args = argparse.Namespace(layers=3, dtype=torch.bfloat16, device=torch.device("cuda", 1))
    saved = {
        "args": args,
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "default": collections.defaultdict(list, {"a": [1, (2, None)]}),
        "state": torch.nn.LayerNorm(2).state_dict(),  # an OrderedDict with attributes
        "set": {1, 2},
        "bytes": b"\0\xff",
        "random": np.random.default_rng(0).random(2),
        "big": -(2**80),
    }
    torch.save(saved, tmp_path / "x.pt")
    read = torch_file.index(tmp_path / "x.pt")
    assert read["args"].kind == "argparse.Namespace" and read["args"].fields["layers"] == 3
    assert read["args"].fields["dtype"].name == "bfloat16"
    assert read["args"].fields["device"].args == ("cuda", 1)
    assert read["random"].kind.endswith("multiarray._reconstruct")
    assert read["dtype"] == np.float16 and read["state"]["weight"].name == "state.weight"
    for key in ("size", "default", "set", "bytes", "big"):
        assert read[key] == saved[key]
    assert {type(read[key]) for key in ("size", "default", "state")} == {tuple, dict}


def write_torch(path: pathlib.Path, pickled: bytes, compress: int = 0, **members: bytes):
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, data in members.items():
            archive.writestr(f"x/{name}".replace("__", "/"), data)


# What follows pushes a tensor of storage "0", 4 floats.
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
    b"0X\3\0\0\0cpu%stQ%s\x89Nt"
)


def tensor(shape="(I4\nt", strides="(I1\nt", offset="I0\n", size="I4\n") -> bytes:
    return TENSOR % (size.encode(), f"{offset}{shape}{strides}".encode()) + b"R"


def named(value: bytes) -> bytes:
    """A pickle of {"w": value}."""
    return b"\x80\x02}X\1\0\0\0w" + value + b"s."


class Shell:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_the_payload_of_these_tests_is_live(tmp_path):
    pickle.loads(pickle.dumps(Shell(tmp_path / "harm")))
    assert (tmp_path / "harm").exists()


def attacks(marker: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that would leave the file `marker`, and what each is refused for."""
    python = f"open({marker!r}, 'w').close()"
    text = b"X" + len(python).to_bytes(4, "little") + python.encode()
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    from_type = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    factory = b"ccollections\ndefaultdict\n"
    dotted = b"\x8c\x0bcollections\x8c\x20OrderedDict.__init__.__globals__\x93"
    record = b"cargparse\nNamespace\n"
    return {
        "system": (pickle.dumps(Shell(marker)), r"asks for (posix|nt)\.system"),
        "system 2": (pickle.dumps(Shell(marker), 2), r"asks for (posix|nt)\.system"),
        "system 0": (pickle.dumps(Shell(marker), 0), r"asks for (posix|nt)\.system"),
        "eval": (b"cbuiltins\neval\n(" + text + b"tR.", r"builtins\.eval"),
        "exec": (b"c__builtin__\nexec\n(" + text + b"tR.", r"__builtin__\.exec"),
        "getattr": (b"cbuiltins\ngetattr\n(cos\nX\6\0\0\0systemtR.", r"builtins\.getattr"),
        "dotted": (b"\x80\x04" + dotted + b".", r"OrderedDict\.__init__\.__globals__"),
        "inst": (b"(X\1\0\0\0aios\nsystem\n.", "uses INST os system"),
        "obj": (b"(" + record + text + b"o.", "uses OBJ"),
        "extension": (b"\x82\x01.", "uses EXT1"),
        "torch function": (b"ctorch.hub\nload\n(" + text + b"tR.", r"torch\.hub\.load"),
        "torch's os": (b"ctorch._utils\nos.system\n(" + text + b"tR.", r"_utils\.os\.system"),
        "record": (record + b"(" + text + b"tR.", r"calls argparse\.Namespace"),
        "class": (b"cbuiltins\nlist\n(" + text + b"tR.", r"calls builtins\.list"),
        "call of a result": (b"ccollections\nOrderedDict\n)R)R.", "calls a dict"),
        "call of a record": (record + b")\x81)R.", "calls a Record"),
        "build function": (function + b"}X\7\0\0\0__doc__Nsb.", "sets attributes of torch"),
        "build class": (record + b"N}X\5\0\0\0__x__Ns\x86b.", "sets attributes of argparse"),
        "build tensor": (named(tensor() + b"}X\4\0\0\0nameNsb"), "sets attributes of a Raw"),
        "from type": (from_type + b"(" + function + record + b"(tNtR.", r"makes argparse\.Names"),
        "hidden factory": (factory + b"(cos\nsystem\ntR.", r"asks for os\.system"),
        "arguments": (function + b"(" + text + b"tR.", "with other arguments than PyTorch"),
        "codec": (b"c_codecs\nencode\n(" + text + b"X\5\0\0\0rot13tR.", "but not for bytes"),
        "new": (function + b")\x81.", "calls torch._utils._rebuild_tensor_v2, which"),
    }


@pytest.mark.parametrize("name", attacks(""))
def test_hostile_pickles_are_refused_and_not_run(tmp_path, name):
    marker = tmp_path / "harm"
    pickled, reason = attacks(str(marker))[name]
    write_torch(tmp_path / "evil.pt", pickled, data__0=bytes(16))
    for function in (torch_file.index, torch_file.read):
        with pytest.raises(GeexError, match=reason) as error:
            function(tmp_path / "evil.pt")
        assert "refused" in str(error.value) and "\n" not in str(error.value)
    assert not marker.exists()


def test_attributes_land_in_records_only(tmp_path):
    write_torch(tmp_path / "x.pt", b"cargparse\nNamespace\n)\x81}X\7\0\0\0__doc__I1\nsb.")
    record = torch_file.index(tmp_path / "x.pt")
    assert record.fields == {"__doc__": 1} and record.__doc__ == torch_file.Record.__doc__


HUGE = "L4611686018427387904L\n"
BAD_TENSORS = {
    "gigantic": (tensor(shape="(I1099511627776\nt"), "w reaches past its storage"),
    "overflowing": (tensor(f"({HUGE}I0\nt", "(I1\nI1\nt"), "w has an impossible shape"),
    "repeating": (tensor("(I1099511627776\nt", "(I0\nt"), "w repeats its bytes to 1099511627776"),
    "negative stride": (tensor(strides="(I-1\nt"), "w has an impossible shape, stride"),
    "negative shape": (tensor(shape="(I-4\nt"), "w has an impossible shape"),
    "negative offset": (tensor(offset="I-4\n"), "w has an impossible shape, stride or offset"),
    "fractional": (tensor(shape="(F1.5\nt"), "w has an impossible shape"),
    "uneven": (tensor(strides="(t"), "w has an impossible shape"),
    "40 dimensions": (tensor("(" + "I1\n" * 40 + "t", "(" + "I1\n" * 40 + "t"), "impossible"),
    "past the end": (tensor(offset="I1\n"), "w reaches past its storage"),
    "wide stride": (tensor(strides="(I2\nt"), "w reaches past its storage"),
    "short storage": (tensor(size="I5\n"), "w has a storage of 16 bytes where 20 are due"),
    "vast storage": (tensor(size=HUGE), "w has an impossible shape"),
    "no storage": (tensor().replace(b"\0000X", b"\0001X"), "w has no storage x/data/1"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensors_that_do_not_fit(tmp_path, name):
    value, reason = BAD_TENSORS[name]
    write_torch(tmp_path / "x.pt", named(tensor()), data__0=bytes(16))
    assert torch_file.index(tmp_path / "x.pt")["w"].shape == (4,)
    write_torch(tmp_path / "x.pt", named(value), data__0=bytes(16))
    with pytest.raises(GeexError, match=rf"x\.pt: tensor .*{reason}"):
        torch_file.index(tmp_path / "x.pt")


BOMBS = {
    "doubling": (b"]" + b"2\x86" * 60 + b".", "unfolds without end|nests without end"),
    "doubling key": (b"})" + b"2\x86" * 60 + b"Ns.", "has a tuple as a key"),
    "cycle": (b"]q\0h\0a.", "nests without end"),
    "depth": (b"]" * 3000 + b"a" * 2999 + b".", "nests without end"),
    "bytes": (
        b"](X\0\0\1\0%s\x94c_codecs\nencode\n\x94X\6\0\0\0latin1\x94" % (b"a" * 65536)
        + b"h\1h\0h\2\x86R" * 5000
        + b"e.",
        "unfolds without end",
    ),
    "no name": (b"\x80\x04)" + b"2\x86" * 60 + b"X\1\0\0\0a\x93.", "something without a name"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_pickles_that_unfold(tmp_path, name):
    pickled, reason = BOMBS[name]
    write_torch(tmp_path / "x.pt", pickled)
    started = time.monotonic()
    with pytest.raises(GeexError, match=reason):
        torch_file.index(tmp_path / "x.pt")
    assert time.monotonic() - started < 60  # for ever, unless they are stopped


@pytest.fixture
def small(tmp_path) -> pathlib.Path:
    tree = {"a": {"w": InMemory(np.arange(12.0).reshape(3, 4))}, "b": InMemory(np.ones(5, np.int8))}
    torch_write.write(tmp_path / "small.pt", tree)
    return tmp_path / "small.pt"


def test_cut_anywhere(small):
    data = small.read_bytes()
    for end in [*range(0, len(data) - 200, 17), *range(len(data) - 200, len(data))]:
        small.write_bytes(data[:end])
        with pytest.raises(GeexError, match="not a PyTorch zip file, or cut short"):
            torch_file.read(small)


def test_damaged_anywhere(small):
    data, generator = small.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(generator.choice([1, 4])):
            damaged[generator.randrange(len(data))] = generator.randrange(256)
        small.write_bytes(damaged)
        try:
            found = torch_file.read(small)
            assert found["a"]["w"].shape == (3, 4)  # what the CRC of data.pkl protects
        except GeexError as error:
            assert "small.pt" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_formats_that_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    write_torch(path, named(tensor()), byteorder=b"big", data__0=bytes(16))
    with pytest.raises(GeexError, match=r"x\.pt: written on a big-endian machine; re-save it"):
        torch_file.index(path)
    write_torch(path, named(tensor()), byteorder=b"little", data__0=bytes(16))
    assert isinstance(torch_file.index(path)["w"], Tensor)
    write_torch(path, named(tensor()), zipfile.ZIP_DEFLATED, data__0=bytes(16))
    with pytest.raises(GeexError, match=r"x/data\.pkl is compressed or encrypted; re-save it"):
        torch_file.index(path)
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
    with pytest.raises(GeexError, match=r"x\.pt: PyTorch's format from before 1\.6; re-save it"):
        torch_file.index(path)
    path.write_bytes(bytes(257) + b"ustar\0" + bytes(600))
    with pytest.raises(GeexError, match=r"x\.pt: a TAR file, .*; re-save it"):
        torch_file.index(path)
    with pytest.raises(GeexError, match="no checkpoint file"):
        torch_file.index(tmp_path)


def test_the_old_format_as_torch_writes_it(tmp_path):
    torch = pytest.importorskip("torch")
    tree = {"w": torch.ones(2)}
    torch.save(tree, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(GeexError, match=r"PyTorch's format from before 1\.6"):
        torch_file.index(tmp_path / "x.pt")
