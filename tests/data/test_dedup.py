"""Copies: near ones planted at a known similarity, across parts, and clusters of any shape."""

import dataclasses
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

from geex_jax.benchmark.recall_bench import found, jaccard, lines, planted
from geex_jax.data import Dedup, PrepareConfig, prepare, read_sources
from geex_jax.data.dedup import clusters, minhash, shuffle
from geex_jax.errors import GeexError
from tests.data.conftest import CONFIG
from tests.data.helpers import ByteTokenizer, make_tree, source, write

REPO = pathlib.Path(__file__).parent.parent.parent


def test_recall_and_false_alarms_at_known_similarities():
    """Measured on 100 pairs each: above the threshold nearly all, below it nearly none."""
    rng = random.Random(0)
    settings = Dedup(near=0.8)
    near = [planted(rng, 0.9) for _ in range(100)]
    assert all(0.85 < jaccard(*pair) <= 0.9 for pair in near)
    assert found(near, settings) >= 0.97
    assert found([planted(rng, 0.95) for _ in range(60)], settings) == 1.0
    assert found([planted(rng, 0.65) for _ in range(100)], settings) <= 0.02


@pytest.mark.parametrize("near", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_hold_the_recall_that_they_promise(near):
    count, rows = minhash.bands(Dedup(near=near))
    assert 1 - (1 - near**rows) ** count >= minhash.RECALL and count * rows <= 128


def test_signatures_depend_on_the_text_alone():
    """The same in another process with another hash seed, alone or in a batch."""
    hashes = [minhash.shingles(source(seed), 5) for seed in range(3)]
    matrix = minhash.signatures(hashes, 16)
    assert np.array_equal(matrix[1:2], minhash.signatures(hashes[1:2], 16))
    code = (
        "from geex_jax.data.dedup import minhash; from tests.data.helpers import source;"
        "print(minhash.signatures([minhash.shingles(source(1), 5)], 16).tolist())"
    )
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=REPO,
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.strip() == str(matrix[1:2].tolist())
    # A golden value: another version of rensa with another algorithm must change `algorithm()`.
    assert minhash.algorithm() == "rensa R-MinHash 2"
    assert matrix[0, :3].tolist() == [80329173, 502309950, 27150700]


def test_estimates_are_close_to_the_similarity():
    rng = random.Random(1)
    errors = []
    for similarity in (0.5, 0.7, 0.9):
        for _ in range(10):
            pair = planted(rng, similarity)
            hashes = [minhash.shingles(lines(x), 5) for x in pair]
            matrix = minhash.signatures(hashes, 128)
            errors.append(minhash.similarity(matrix[0], matrix[1:])[0] - jaccard(*pair))
    assert abs(np.mean(errors)) < 0.03 and np.std(errors) < 0.07


@pytest.fixture
def copies(tmp_path):
    """50 files in many parts, and near-copies of ten of them in other folders."""
    rng = random.Random(2)
    top = make_tree(tmp_path / "in", {".py": 20, ".go": 10})
    for i in range(10):
        one, other = planted(rng, 0.93)
        write(top / "a" / f"one{i}.py", lines(one))
        write(top / "z" / f"other{i}.py", lines(other))
    write(top / "z" / "same.py", (top / "a" / "one0.py").read_bytes())
    return top


def test_copies_across_parts_are_found_and_the_first_stays(copies, tmp_path):
    # The share of letters in the planted files is below the paper's limit.
    config = dataclasses.replace(CONFIG, filters=PrepareConfig().filters, validation_fraction=0.0)
    config = dataclasses.replace(config, filters=dataclasses.replace(config.filters, min_alpha=0.2))
    manifest = prepare(copies, tmp_path / "d", ByteTokenizer(), config)
    assert manifest.dropped["Python"] == {"duplicate": 1, "near_duplicate": 10}
    assert "Go" not in manifest.dropped
    kept = {text for _, text in read_sources(copies, config)}
    for i in range(10):
        assert (copies / "a" / f"one{i}.py").read_text() in kept
        assert (copies / "z" / f"other{i}.py").read_text() not in kept
    exact = dataclasses.replace(config, near_dup_threshold=0.0, workers=2)
    assert len(list(read_sources(copies, exact))) == 50
    both = dataclasses.replace(
        config, filters=dataclasses.replace(config.filters, keep_duplicates=True)
    )
    assert len(list(read_sources(copies, both))) == 51
    two = prepare(copies, tmp_path / "two", ByteTokenizer(), dataclasses.replace(config, workers=2))
    assert two == manifest


def test_short_files_are_compared_exactly_only(tmp_path):
    for i in range(4):
        write(tmp_path / f"x{i}.py", f"def f(x):\n    return x + {i}\n")
    filters = dataclasses.replace(CONFIG.filters, min_bytes=0, min_alpha=0.0)
    config = dataclasses.replace(CONFIG, filters=filters)
    assert len(list(read_sources(tmp_path, config))) == 4


def test_clusters_of_any_shape_and_order(tmp_path):
    """A chain, a star and two pairs that meet at the end, their edges in several files."""
    rng = np.random.default_rng(0)
    count = 3000
    chain = [(i + 1, i) for i in range(999)]
    star = [(i, 1000) for i in range(1001, 1500)]
    late = [(1601, 1600), (1701, 1700), (1701, 1601)]
    pairs = np.array(chain + star + late)
    expected = np.arange(count)
    expected[:1000], expected[1000:1500], expected[[1601, 1700, 1701]] = 0, 1000, 1600
    for order in range(3):
        edges = np.zeros(len(pairs), clusters.EDGE)
        shuffled = pairs[rng.permutation(len(pairs))]
        edges["document"], edges["first"] = shuffled[:, 0], shuffled[:, 1]
        paths = [tmp_path / f"{order}-{i}.npy" for i in range(5)]
        for path, some in zip(paths, np.array_split(edges, 5), strict=True):
            shuffle.save(path, some)
        label = clusters.connect(paths, lambda x: x.astype(np.int64), count)
        assert np.array_equal(label, expected)


def test_what_is_scattered_is_gathered_by_bucket(tmp_path):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 1000, n) for n in (0, 1, 500)]
    for i, records in enumerate(parts):
        shuffle.scatter(tmp_path / f"{i}.npy", records, records % 7, 7)
    paths = [tmp_path / f"{i}.npy" for i in range(3)]
    for bucket in range(7):
        got = shuffle.gather(iter(paths), bucket, np.dtype(np.int64))
        expected = np.concatenate([x[x % 7 == bucket] for x in parts])
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("bad", [Dedup(near=0.1), Dedup(near=1.5), Dedup(permutations=4)])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(GeexError):
        bad.check()
