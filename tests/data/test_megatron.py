"""Megatron's files in place: rows, splits, languages, refusals."""

import dataclasses
import itertools
import os
import struct

import numpy as np
import pytest

from geex_jax.data import eval_batches, load_manifest, make_loader, read_rows
from geex_jax.data.megatron import prepare_megatron
from geex_jax.data.summary import summary
from geex_jax.errors import GeexError
from tests.data.helpers import ByteTokenizer

CODES = {"uint8": 1, "int16": 3, "int32": 4, "int64": 5, "uint16": 8}


def write_pair(prefix, sequences, dtype="uint16", documents=None):
    """Writes what Megatron's MMapIndexedDatasetBuilder writes."""
    sizes = np.array([len(s) for s in sequences], np.int32)
    width = np.dtype(dtype).itemsize
    pointers = np.concatenate([[0], np.cumsum(sizes[:-1], dtype=np.int64)]) * width
    ends = np.arange(len(sizes) + 1) if documents is None else np.array(documents)
    with open(f"{prefix}.idx", "wb") as file:
        file.write(b"MMIDIDX\x00\x00" + struct.pack("<QB", 1, CODES[dtype]))
        file.write(struct.pack("<QQ", len(sizes), len(ends)))
        file.write(sizes.tobytes() + pointers.astype(np.int64).tobytes())
        file.write(ends.astype(np.int64).tobytes())
    with open(f"{prefix}.bin", "wb") as file:
        for sequence in sequences:
            file.write(np.asarray(sequence, dtype).tobytes())
    return str(prefix)


def documents(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return [[*rng.integers(1, 250, rng.integers(1, 60)), 256] for _ in range(count)]


def flat(parts):
    return list(itertools.chain(*parts))


def rows_of(stream, ends, seq_len, pad=257):
    """The rows by a plain loop over tokens."""
    out = []
    for begin in range(0, len(stream) - 1, seq_len):
        ids = stream[begin : begin + seq_len + 1]
        starts = [0] + [e - begin for e in ends if begin < e < begin + len(ids)]
        out.append((ids + [pad] * (seq_len + 1 - len(ids)), starts, len(ids)))
    return out


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "int64"])
@pytest.mark.parametrize("per_document", [1, 3])
def test_rows_are_cut_from_the_documents_in_place(tmp_path, dtype, per_document):
    sequences = documents(42)
    ends = None if per_document == 1 else np.arange(0, 43, per_document)
    prefix = write_pair(tmp_path / "code", sequences, dtype, ends)
    out = tmp_path / "data"
    manifest = prepare_megatron(prefix, out, ByteTokenizer(), seq_len=50, validation_fraction=0.2)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "tokenizer"]
    groups = [flat(sequences[i : i + per_document]) for i in range(0, 42, per_document)]
    cut = len(groups) - int(len(groups) * 0.2)
    for split, part in (("train", groups[:cut]), ("validation", groups[cut:])):
        edges = np.cumsum([len(g) for g in part]).tolist()
        expected = rows_of(flat(part), edges, 50)
        found = list(read_rows(out, split, "Unknown"))
        assert [(r.tokens.tolist(), r.starts.tolist(), r.used) for r in found] == expected
        amount = manifest.amount(split, "Unknown")
        assert amount.files == len(part) and amount.rows == len(expected)
        assert amount.tokens == edges[-1]
    shown = summary(manifest)
    assert "Unknown" in shown and f"{len(groups)} documents kept" in shown
    whole = 0
    for part in (groups[:cut], groups[cut:]):
        edges = [0, *np.cumsum([len(g) for g in part]).tolist()]
        rows = range(0, edges[-1], 50)
        whole += sum(any(r <= a and b <= r + 51 for r in rows if r <= a < r + 50)
                     for a, b in itertools.pairwise(edges))  # fmt: skip
    assert manifest.whole == pytest.approx(whole / len(groups), abs=1e-6)
    batch = next(eval_batches(out, "validation", 4))
    if per_document == 1:  # every end of text ends a document
        assert not batch["loss_mask"][batch["tokens"] == 256].any()
    loader = make_loader(out, batch_size=4)
    seen = {row.tobytes() for s in range(manifest.amount("train", "Unknown").rows // 4)
            for row in loader.batch(s)["tokens"]}  # fmt: skip
    assert len(seen) == manifest.amount("train", "Unknown").rows // 4 * 4


def test_the_official_triple_is_windows_with_labels(tmp_path):
    prefix = tmp_path / "train"
    ids = [[9, 9, 65, 66, 256] + [256] * 3, [70, 71, 72, 73, 74, 75, 76, 77]]
    labels = [[-100, -100, 65, 66, 256] + [-100] * 3, ids[1]]
    write_pair(f"{prefix}_input_ids", ids, "int32", [0])  # no document is ever ended
    write_pair(f"{prefix}_attention_mask", [[1] * 8] * 2, "int32", [0])
    write_pair(f"{prefix}_labels", labels, "int32", [0])
    for given in (str(prefix), f"{prefix}_input_ids"):
        manifest = prepare_megatron(
            given, tmp_path / "data", ByteTokenizer(), language="py", validation_fraction=0.0,
            overwrite=True,
        )  # fmt: skip
    assert manifest.seq_len == 7 and manifest.amount("train", "Python").rows == 2
    batch = make_loader(tmp_path / "data", batch_size=2, shuffle=False).batch(0)
    assert batch["tokens"].tolist() == [row[:-1] for row in ids]
    assert batch["loss_mask"].tolist() == [[0, 1, 1, 1, 0, 0, 0], [1] * 7]
    assert batch["segment_ids"].tolist() == [[1, 1, 1, 1, 1, 0, 0], [1] * 7]
    assert set(batch["language"]) == {manifest.language_index("Python")}


def test_several_prefixes_make_a_mixture(tmp_path):
    for name, count in (("a", 60), ("b", 20)):
        write_pair(tmp_path / name, documents(count, count))
    words = [f"python={tmp_path / 'a'}", f"Go={tmp_path / 'b'}"]
    prepare_megatron(words, tmp_path / "data", ByteTokenizer(), seq_len=40)
    loader = make_loader(tmp_path / "data", batch_size=4, weights={"Go": 1.0, "Python": 1.0})
    assert sorted(loader.batch(3)["language"].tolist()).count(
        loader.manifest.language_index("Go")
    ) == 2  # fmt: skip
    with pytest.raises(GeexError, match="two prefixes are of Unknown"):
        prepare_megatron([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "x",
                         ByteTokenizer())  # fmt: skip


def test_files_that_cannot_be_are_one_line(tmp_path):
    good = documents()
    cases = []

    def case(name, message, change=None, **words):
        prefix = write_pair(tmp_path / name, good, **words)
        if change:
            change(prefix)
        cases.append((prefix, message))

    def cut(ending, by):
        return lambda p: os.truncate(p + ending, os.path.getsize(p + ending) - by)

    def poke(ending, at, data):
        def change(prefix):
            with open(prefix + ending, "r+b") as file:
                file.seek(at)
                file.write(data)

        return change

    case("short", "cut short", cut(".bin", 100))
    case("index", "cut short", cut(".idx", 9))
    case("head", "no index of Megatron", lambda p: os.truncate(p + ".idx", 20))
    case("magic", "no index of Megatron", poke(".idx", 0, b"TNTIDX"))
    case("version", "version 7", poke(".idx", 9, b"\x07"))
    case("floats", "dtype code 6", poke(".idx", 17, b"\x06"))
    case("gone", "cannot read .*gone.bin", lambda p: os.unlink(p + ".bin"))
    case("vocabulary", "has token 60000, .* 258 pieces", poke(".bin", 40, b"\x60\xea"))
    case("negative", "has token -3", poke(".bin", 40, b"\xfd\xff"), dtype="int16")
    case("order", "do not follow", poke(".idx", 34 + 4 * 40 + 8, b"\x01"))
    case("ends", "document index", documents=[0, 3])
    for prefix, message in cases:
        with pytest.raises(GeexError, match=message) as error:
            prepare_megatron(prefix, tmp_path / "data", ByteTokenizer(), seq_len=40)
        assert "\n" not in str(error.value) and not (tmp_path / "data").exists()
    with pytest.raises(GeexError, match="cannot read"):
        prepare_megatron(str(tmp_path / "nothing"), tmp_path / "data", ByteTokenizer())


def test_files_that_change_afterwards_and_outputs_in_the_way_are_refused(tmp_path):
    prefix, out = write_pair(tmp_path / "code", documents()), tmp_path / "data"
    prepare_megatron(prefix, out, ByteTokenizer(), seq_len=40)
    with pytest.raises(GeexError, match="--overwrite"):
        prepare_megatron(prefix, out, ByteTokenizer(), seq_len=40)
    with pytest.raises(GeexError, match="no prepared data"):
        prepare_megatron(prefix, tmp_path, ByteTokenizer(), seq_len=40, overwrite=True)
    write_pair(tmp_path / "code", documents(41))
    with pytest.raises(GeexError, match="the manifest says"):
        make_loader(out, batch_size=2)
    write_pair(tmp_path / "code", [[300] * len(d) for d in documents()])
    with pytest.raises(GeexError, match="has token 300"):
        make_loader(out, batch_size=2).batch(0)
    assert dataclasses.asdict(load_manifest(out))["tags"] is False
