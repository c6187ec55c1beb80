"""The loader: a pure function of (data, seed, step), shared, stopped or prefetched."""

import collections
import dataclasses
import json
import shutil

import numpy as np
import pytest

from geex_jax.data import (
    PrepareConfig,
    eval_batches,
    load_manifest,
    make_loader,
    prepare,
    read_rows,
)
from geex_jax.data.loader import mixture
from geex_jax.errors import GeexError
from tests.data.helpers import ByteTokenizer, make_tree

SHAPES = {
    "tokens": "int32",
    "targets": "int32",
    "positions": "int32",
    "segment_ids": "int32",
    "loss_mask": "float32",
    "language": "int32",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = make_tree(tmp_path_factory.mktemp("in"), {".py": 60, ".go": 24, ".rs": 9})
    output = tmp_path_factory.mktemp("out") / "data"
    config = PrepareConfig(
        seq_len=128, rows_per_shard=50, validation_fraction=0.2, workers=1, packing="concat"
    )
    prepare(top, output, ByteTokenizer(), config)
    return output


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_batches_have_the_shapes_of_the_contract(folder):
    loader = make_loader(folder, "train", batch_size=60)
    for batch in (next(loader), loader.batch(5), next(eval_batches(folder, "train", 60))):
        assert {name: str(array.dtype) for name, array in batch.items()} == SHAPES
        assert batch["language"].shape == (60,)
        assert all(batch[name].shape == (60, 128) for name in list(SHAPES)[:5])
        assert np.array_equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
        inside = batch["loss_mask"][:, :-1] > 0
        step = np.diff(batch["positions"], axis=1)
        assert np.all(step[inside] == 1)
        ends = batch["tokens"] == 256  # no loss on what follows an end of text
        assert ends.any() and not batch["loss_mask"][ends].any()
        eos_targets = batch["targets"] == 256
        assert np.all(batch["loss_mask"][eos_targets] == 1)


def test_the_order_is_a_function_of_seed_and_step(folder):
    one, two = (make_loader(folder, batch_size=4, seed=7) for _ in range(2))
    first = [next(one) for _ in range(8)]
    assert all(same(batch, two.batch(step)) for step, batch in enumerate(first))
    plain = make_loader(folder, batch_size=4, seed=7, prefetch=0)
    assert all(same(batch, next(plain)) for batch in first)
    other = make_loader(folder, batch_size=4, seed=8)
    assert not same(first[0], other.batch(0))


def test_processes_share_the_same_global_batch(folder):
    whole = make_loader(folder, batch_size=8, seed=1)
    for count in (2, 4, 8):
        parts = [
            make_loader(folder, batch_size=8, seed=1, process_index=i, process_count=count)
            for i in range(count)
        ]
        for _ in range(2):
            batches = [next(part) for part in parts]
            joined = {k: np.concatenate([b[k] for b in batches]) for k in SHAPES}
            assert same(joined, whole.batch(parts[0].step - 1))


def test_a_process_reads_the_rows_it_is_told_to(folder):
    whole = make_loader(folder, batch_size=8, seed=1).batch(5)
    for rows in ([0, 1, 2, 3], [2, 3, 6, 7], [5]):
        part = make_loader(folder, batch_size=8, seed=1, rows=rows).batch(5)
        assert same(part, {k: v[rows] for k, v in whole.items()})
    for rows in ([], [1, 1], [3, 2], [8], [-1]):
        with pytest.raises(GeexError, match="ascending, within it"):
            make_loader(folder, batch_size=8, rows=rows)


def test_an_epoch_sees_every_row_once_and_the_next_in_another_order(folder):
    manifest = load_manifest(folder)
    rows = manifest.amount("train", "Python").rows
    loader = make_loader(folder, batch_size=1, weights={"Python": 1.0}, prefetch=0)
    epochs = [[loader.batch(s)["tokens"].tobytes() for s in range(rows * e, rows * (e + 1))]
              for e in range(2)]  # fmt: skip
    stored = [row.tokens[:-1].astype(np.int32).tobytes()
              for row in read_rows(folder, "train", "Python")]  # fmt: skip
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(stored)
    assert epochs[0] != epochs[1] and epochs[0] != stored
    assert loader.epochs(rows * 2) == {"Python": 2.0}
    straight = make_loader(folder, batch_size=1, weights={"Python": 2.0},
                           shuffle=False)  # fmt: skip
    assert [next(straight)["tokens"].tobytes() for _ in range(rows)] == stored


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_mixture_follows_share_to_the_alpha(folder, alpha):
    loader = make_loader(folder, batch_size=10, alpha=alpha)
    manifest = loader.manifest
    tokens = {name: a.tokens for name, a in manifest.splits["train"].items()}
    raw = {name: (n / sum(tokens.values())) ** alpha for name, n in tokens.items()}
    expected = {name: value / sum(raw.values()) for name, value in raw.items()}
    assert loader.probabilities == pytest.approx(expected)
    seen = collections.Counter()
    for step in range(60):
        seen.update(loader.batch(step)["language"].tolist())
    for name, p in expected.items():
        assert abs(seen[manifest.language_index(name)] / 600 - p) < 0.02


def test_weights_in_place_of_alpha(folder):
    loader = make_loader(folder, batch_size=8, weights={"Go": 3.0, "rust": 1.0, "python": 0})
    assert loader.probabilities == {"Go": 0.75, "Rust": 0.25}
    seen = collections.Counter(loader.batch(0)["language"].tolist())
    assert seen[loader.manifest.language_index("Go")] == 6
    manifest = load_manifest(folder)
    names = list(manifest.splits["train"])
    for weights in ({"Go": -1.0}, {"Java": 1.0}, {"Go": 0.0}, {"Gu": 1.0}):
        with pytest.raises(GeexError):
            mixture(manifest, "train", names, 1.0, weights)


def test_a_cap_on_epochs_ends_languages_and_at_last_the_data(folder):
    rows = {n: a.rows for n, a in load_manifest(folder).splits["train"].items()}
    loader = make_loader(folder, batch_size=4, alpha=0.0, max_epochs=1.0)
    total = sum(rows.values())
    assert loader.steps == total // 4
    batches = [next(loader) for _ in range(loader.steps)]
    seen = [row.tobytes() for batch in batches for row in batch["tokens"]]
    stored = [row.tokens[:-1].astype(np.int32).tobytes()
              for name in rows for row in read_rows(folder, "train", name)]  # fmt: skip
    assert not collections.Counter(seen) - collections.Counter(stored)  # no row twice
    assert all(count <= 1.0 for count in loader.epochs().values())
    assert loader.epochs()["Rust"] == 1.0 and set(batches[-1]["language"]) == {
        loader.manifest.language_index("Python")
    }
    for read in (lambda: loader.batch(loader.steps), lambda: next(loader)):
        with pytest.raises(GeexError, match="max_epochs"):
            read()
    assert make_loader(folder, batch_size=4).steps is None


def test_a_curriculum_changes_the_mixture_at_its_step(folder):
    curriculum = ((3, {"Go": 1.0}), (5, 0.0))
    words = {"batch_size": 6, "weights": {"Python": 1.0}, "curriculum": curriculum}
    loader = make_loader(folder, **words)
    names = [x.name for x in loader.manifest.languages]
    kinds = [{names[i] for i in next(loader)["language"]} for _ in range(7)]
    assert kinds == [{"Python"}] * 3 + [{"Go"}] * 2 + [{"Python", "Go", "Rust"}] * 2
    state = loader.get_state()
    expected = [next(loader) for _ in range(2)]
    parts = [make_loader(folder, **words, process_index=i, process_count=2) for i in range(2)]
    for part in parts:
        part.set_state(state)
    for batch in expected:
        halves = [next(part) for part in parts]
        assert same(batch, {k: np.concatenate([h[k] for h in halves]) for k in batch})
    for other in ({"curriculum": curriculum[:1]}, {"max_epochs": 5.0}):
        with pytest.raises(GeexError, match="was saved with mixture"):
            make_loader(folder, **(words | other)).set_state(state)


def test_what_is_not_asked_for_is_as_the_recipe_says(folder, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    said = {"weights": {"Go": 1.0}, "max_epochs": 1.0, "curriculum": [[2, {"Rust": 1.0}]]}
    path.write_text(json.dumps(manifest | {"mixture": said}))
    loader = make_loader(copy, batch_size=2)
    rust = loader.manifest.amount("train", "Rust").rows
    assert loader.probabilities == {"Go": 1.0} and loader.steps == 2 + rust // 2
    assert len(make_loader(copy, batch_size=2, alpha=0.5).probabilities) == 3
    other = make_loader(copy, batch_size=2, weights={"Python": 1.0}, max_epochs=0, curriculum=())
    assert other.probabilities == {"Python": 1.0} and other.steps is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"alpha": "much"}, "alpha 'much' is not a number"),
        ({"curriculum": ((0, {"Go": 1.0}),)}, "do not ascend at 0"),
        ({"curriculum": ((5, 0.5), (5, 1.0))}, "do not ascend at 5"),
        ({"curriculum": (5,)}, "is not .step, weights or alpha"),
        ({"curriculum": ((5, {}),)}, "is not .step, weights or alpha"),
        ({"curriculum": ((5, {"Java": 1.0}),)}, "Java has no rows"),
        ({"curriculum": ((5, {"Gu": 1.0}),)}, "unknown language"),
        ({"weights": {"Go": "much"}}, "is no number"),
        ({"max_epochs": -1.0}, "max_epochs -1.0 is out of range"),
    ],
)
def test_mixtures_that_cannot_be_are_one_line(folder, words, message):
    with pytest.raises(GeexError, match=message) as error:
        make_loader(folder, batch_size=4, **words)
    assert "\n" not in str(error.value)


def test_state_saved_and_restored_goes_on_exactly(folder):
    loader = make_loader(folder, batch_size=4, seed=3)
    for _ in range(5):
        next(loader)
    state = json.loads(json.dumps(loader.get_state()))
    expected = [next(loader) for _ in range(4)]
    assert state["step"] == 5
    fresh = make_loader(folder, batch_size=4, seed=3)
    fresh.set_state(state)
    assert all(same(batch, next(fresh)) for batch in expected) and fresh.step == 9
    loader.set_state(state)  # back, on the same loader
    assert same(expected[0], next(loader))
    half = make_loader(folder, batch_size=4, seed=3, process_index=1, process_count=2)
    half.set_state(state)  # on another number of processes
    assert np.array_equal(next(half)["tokens"], expected[0]["tokens"][2:])


def test_a_state_of_something_else_is_refused(folder):
    state = make_loader(folder, batch_size=4, seed=3).get_state()
    for change in ({"seed": 4}, {"batch_size": 8}, {"alpha": 0.5}, {"shuffle": False}):
        other = make_loader(folder, **({"batch_size": 4, "seed": 3} | change))
        with pytest.raises(GeexError, match="was saved with") as error:
            other.set_state(state)
        assert "\n" not in str(error.value)
    with pytest.raises(GeexError, match="data"):
        make_loader(folder, batch_size=4, seed=3).set_state(state | {"data": "else"})


def test_evaluation_is_one_finite_pass(folder):
    manifest = load_manifest(folder)
    batches = list(eval_batches(folder, "validation", 4))
    amounts = manifest.splits["validation"]
    assert len(batches) == sum(-(-a.rows // 4) for a in amounts.values())
    rows = [row for b in batches for row in b["segment_ids"] if row.any()]
    assert len(rows) == sum(a.rows for a in amounts.values())
    assert all(len(set(b["language"].tolist())) == 1 and len(b["tokens"]) == 4 for b in batches)
    empty = [b["loss_mask"][i] for b in batches for i in range(4) if not b["segment_ids"][i].any()]
    assert empty and not np.any(empty)
    parts = [
        list(eval_batches(folder, "validation", 4, process_index=i, process_count=2))
        for i in range(2)
    ]
    for whole, left, right in zip(batches, *parts, strict=True):
        assert same(whole, {k: np.concatenate([left[k], right[k]]) for k in whole})
    some = list(eval_batches(folder, "validation", 4, max_batches_per_language=1))
    assert len(some) == len(amounts)
    only = list(eval_batches(folder, "validation", 4, languages=["Go"]))
    assert {int(b["language"][0]) for b in only} == {manifest.language_index("Go")}


def test_mistakes_are_one_line(folder, tmp_path):
    cases = [
        ({"batch_size": 6, "process_count": 4}, "does not divide by 4 processes; use 8"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, "process 2 of 2"),
        ({"batch_size": 0}, "batch of 0"),
        ({"batch_size": 4, "split": "test"}, "unknown split"),
        ({"batch_size": 4, "folder": tmp_path}, "no prepared data"),
    ]
    for arguments, words in cases:
        with pytest.raises(GeexError, match=words):
            make_loader(**({"folder": folder} | arguments))


def test_missing_and_damaged_shards_are_one_line(folder, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    paths = load_manifest(copy).shard_paths(copy, "train", "Python")
    assert len(paths) > 1
    shutil.copy(load_manifest(copy).shard_paths(copy, "train", "Rust")[-1], paths[0])
    with pytest.raises(GeexError, match="the manifest says"):
        make_loader(copy, batch_size=4)
    paths[0].unlink()
    with pytest.raises(GeexError, match="missing"):
        make_loader(copy, batch_size=4)
    paths[0].write_bytes(b"no records")
    for read in (
        lambda: make_loader(copy, batch_size=4),
        lambda: list(eval_batches(copy, "train", 4)),
    ):
        with pytest.raises(GeexError, match="geex prepare --overwrite"):
            read()


def test_a_split_without_rows_is_one_line(tmp_path):
    top = make_tree(tmp_path / "in", {".py": 4})
    config = PrepareConfig(seq_len=128, validation_fraction=0.0, workers=1)
    manifest = prepare(top, tmp_path / "d", ByteTokenizer(), config)
    assert dataclasses.asdict(manifest.total("validation"))["rows"] == 0
    with pytest.raises(GeexError, match="no rows in its validation split"):
        next(eval_batches(tmp_path / "d", "validation", 4))
