"""Preparing: the same bytes whatever happens on the way, and honest counts."""

import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from geex_jax import files
from geex_jax.data import (
    Filters,
    PrepareConfig,
    load_manifest,
    prepare,
    read_rows,
    read_sources,
    storage,
)
from geex_jax.data.journal import WORK
from geex_jax.data.splits import split_of
from geex_jax.errors import GeexError
from tests.data.conftest import CONFIG, COUNTS
from tests.data.helpers import ByteTokenizer, digests, make_tree, write

REPO = pathlib.Path(__file__).parent.parent.parent


def test_the_manifest_counts_what_happened(prepared):
    output, manifest = prepared
    assert manifest == load_manifest(output)
    python, cpp = manifest.dropped["Python"], manifest.dropped["C++"]
    assert python == {"binary": 1, "broken_utf8": 1, "duplicate": 1, "generated": 1}
    assert cpp == {"few_letters": 1, "long_lines": 1}
    assert manifest.dropped["Go"] == {"too_large": 1}
    assert manifest.dropped["Rust"] == {"too_small": 1}
    assert manifest.passed_by["empty_folder"] == 1
    seen = manifest.passed_by["files"] - sum(manifest.dropped_by_reason().values())
    totals = [manifest.total(split) for split in ("train", "validation")]
    assert seen == sum(COUNTS.values()) == sum(total.files for total in totals)
    assert manifest.languages[0].name == "C++"
    assert manifest.languages[0].tag_tokens == len("// language: C++")
    assert manifest.tokenizer.fingerprint == ByteTokenizer().fingerprint()
    assert (output / "tokenizer" / "tokenizer.json").is_file()
    assert not (output / WORK).exists()


def test_the_rows_hold_every_document_with_its_tag(prepared, tree):
    output, manifest = prepared
    decode = ByteTokenizer().decode
    for split in ("train", "validation"):
        expected: dict[str, list[str]] = {}
        for language, text in read_sources(tree, CONFIG, split=split):
            expected.setdefault(language.name, []).append(text)
        for name, texts in expected.items():
            index = manifest.language_index(name)
            tag = manifest.languages[index].tag + "\n"
            found, current, rows, tokens = [], "", 0, 0
            for row in read_rows(output, split, name):
                rows, tokens = rows + 1, tokens + row.used
                assert row.language == index and len(row.tokens) == 257
                for piece in np.split(row.tokens[: row.used], row.starts[1:]):
                    text = decode(piece.tolist())
                    assert text.startswith(tag)
                    current += text[len(tag) :]
                    if piece[-1] == 256:
                        found.append(current)
                        current = ""
            assert found == texts
            amount = manifest.amount(split, name)
            assert (amount.rows, amount.tokens) == (rows, tokens)
            assert amount.files == len(texts)
            assert amount.bytes == sum(len(text.encode()) for text in texts)
            names = {p.name for p in (output / split).glob(f"{manifest.languages[index].slug}-*")}
            assert names == {p.name for p in manifest.shard_paths(output, split, name)}
            assert 1 <= len(names) <= 2 + rows // 7


def test_rows_are_full_but_for_the_last_of_a_shard(prepared):
    output, manifest = prepared
    for split in ("train", "validation"):
        for name in manifest.splits[split]:
            rows = list(read_rows(output, split, name))
            short = [row for row in rows if 257 - row.used >= 40]
            assert len(short) <= manifest.amount(split, name).shards
    assert manifest.fill["train"] > 0.95


def test_validation_text_is_the_validation_files(prepared, tree):
    output, manifest = prepared
    texts = []
    for path in sorted((output / "validation_text").iterdir()):
        for line in path.read_text().splitlines():
            value = json.loads(line)
            assert split_of(value["sha256"], 0.2) == "validation"
            texts.append(value["text"])
    assert len(texts) == manifest.total("validation").files > 5
    expected = [text for _, text in read_sources(tree, CONFIG, split="validation")]
    assert sorted(texts) == sorted(expected)


def test_more_workers_give_the_same_bytes(prepared, tree, tmp_path, monkeypatch):
    monkeypatch.setattr("geex_jax.data.encode.CHUNK_BYTES", 5000)
    config = dataclasses.replace(CONFIG, workers=3)
    prepare(tree, tmp_path / "data", ByteTokenizer(), config)
    assert digests(tmp_path / "data") == digests(prepared[0])


def test_the_place_of_the_input_does_not_matter(prepared, tree, tmp_path):
    (tmp_path / "moved").symlink_to(tree)
    config = dataclasses.replace(CONFIG)
    prepare([tmp_path / "moved", tree], tmp_path / "data", ByteTokenizer(), config)
    assert digests(tmp_path / "data") == digests(prepared[0])


def test_the_seed_changes_the_order_and_not_the_split(prepared, tree, tmp_path):
    manifest = prepare(tree, tmp_path / "d", ByteTokenizer(), dataclasses.replace(CONFIG, seed=1))
    before = prepared[1]
    assert manifest.fingerprint != before.fingerprint
    for split in ("train", "validation"):
        for name, amount in before.splits[split].items():
            other = manifest.amount(split, name)
            assert (amount.files, amount.bytes) == (other.files, other.bytes)
    rows = [next(read_rows(folder, "train", "Python")) for folder in (prepared[0], tmp_path / "d")]
    assert not np.array_equal(rows[0].tokens, rows[1].tokens)


def test_without_tags(tree, tmp_path):
    config = dataclasses.replace(CONFIG, tags=False, languages=("go", "rs"))
    manifest = prepare(tree, tmp_path / "d", ByteTokenizer(), config)
    assert manifest.languages[5].tag_tokens == 0 and not manifest.tags
    assert set(manifest.splits["train"]) <= {"Go", "Rust"}
    assert manifest.dropped["Python"]["other_language"] == 42
    assert manifest.total("train").tokens == sum(
        getattr(manifest.total("train"), what) for what in ("bytes", "files")
    )


# --- mistakes and misfortunes ---------------------------------------------------------------


def test_a_whole_output_is_left_alone(prepared, tree, capsys):
    output, manifest = prepared
    before = digests(output)
    assert prepare(tree, output, ByteTokenizer(), CONFIG) == manifest
    assert "prepared already" in capsys.readouterr().err
    with pytest.raises(GeexError, match=r"other settings \(seed\)"):
        prepare(tree, output, ByteTokenizer(), dataclasses.replace(CONFIG, seed=3))
    with pytest.raises(GeexError, match="from other input"):
        prepare(tree / "part0", output, ByteTokenizer(), CONFIG)
    assert digests(output) == before


def test_the_files_of_others_are_never_removed(tree, tmp_path):
    write(tmp_path / "home" / "train" / "mine.txt", "precious")
    for config in (CONFIG, dataclasses.replace(CONFIG, overwrite=True)):
        with pytest.raises(GeexError, match="choose another --output"):
            prepare(tree, tmp_path / "home", ByteTokenizer(), config)
    assert (tmp_path / "home" / "train" / "mine.txt").read_text() == "precious"


def test_a_remote_output_is_uploaded_when_it_is_whole(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("GEEX_CACHE", str(tmp_path / "cache"))
    url = "memory://prepare/data"
    manifest = prepare(tree, url, ByteTokenizer(), CONFIG)
    assert manifest == prepare(tree, tmp_path / "here", ByteTokenizer(), CONFIG)
    there = {entry.path for entry in storage.find(url)}
    assert there == {str(p.relative_to(tmp_path / "here")) for p in (tmp_path / "here").rglob("*")
                     if p.is_file()}  # fmt: skip
    for name in there:
        assert storage.read(storage.join(url, name)) == (tmp_path / "here" / name).read_bytes()
    assert not list((tmp_path / "cache" / "prepared").iterdir())
    with pytest.raises(GeexError, match="holds prepared data already"):
        prepare(tree, url, ByteTokenizer(), CONFIG)
    on_ray = dataclasses.replace(CONFIG, overwrite=True, runner="ray")
    with pytest.raises(GeexError, match="cannot share memory://"):
        prepare(tree, url, ByteTokenizer(), on_ray)


def test_output_inside_input_is_left_out(tmp_path):
    top = make_tree(tmp_path / "in", {".py": 12})
    first = prepare(top, top / "out", ByteTokenizer(), CONFIG)
    again = prepare(top, top / "out", ByteTokenizer(), dataclasses.replace(CONFIG, overwrite=True))
    assert again == first


@pytest.mark.parametrize(
    ("inputs", "config", "words"),
    [
        (["missing"], CONFIG, "does not exist"),
        ([], CONFIG, "no input"),
        (["."], PrepareConfig(languages=("cobol",)), "unknown language"),
        (["."], PrepareConfig(seq_len=20), "too short"),
        (["."], PrepareConfig(validation_fraction=1.0), "out of range"),
        (["."], PrepareConfig(filters=Filters(min_alpha=7)), "share"),
        (["out"], CONFIG, "lies in the output"),
        (["bare"], CONFIG, "no source files"),
        (["poor"], CONFIG, r"no file passed the filters \(too_small 1\)"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(inputs, config, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "bare").mkdir()
    write(tmp_path / "poor" / "x.py", "a = 1\n")
    with pytest.raises(GeexError, match=words) as error:
        prepare(inputs, "out", ByteTokenizer(), config)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_full_disk_is_one_line(tree, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(GeexError, match=r"No space left on device.*resumes"):
            prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG)
    assert prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG).total("train").rows > 10


def test_a_full_disk_in_a_worker_process_is_one_line(tree, tmp_path, monkeypatch):
    """A real one: files may not grow beyond 20 KB, in this process and its workers."""
    code = (
        "import resource, signal, sys\n"
        "from geex_jax.data import PrepareConfig, prepare\n"
        "from geex_jax.errors import GeexError\n"
        "from tests.data.helpers import ByteTokenizer\n"
        "from geex_jax.data.sources import tree\n"
        "tree.PART_FILES = 8\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        prepare(sys.argv[1], sys.argv[2], ByteTokenizer(), PrepareConfig(workers=2))\n"
        "    except GeexError as error:\n"
        "        print(error)\n"
    )
    path = write(tmp_path / "run.py", code)
    out = subprocess.run(
        [sys.executable, path, tree, tmp_path / "d"],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = out.stdout.strip()
    assert "\n" not in line and "cannot write" in line and "it resumes" in line, out.stderr
    assert prepare(tree, tmp_path / "d", ByteTokenizer(), PrepareConfig(workers=1)).seq_len == 2048


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_missing_or_garbled_manifest_names_the_remedy(content, tmp_path):
    if content is not None:
        write(tmp_path / "manifest.json", content)
    with pytest.raises(GeexError, match="geex prepare") as error:
        load_manifest(tmp_path)
    assert "\n" not in str(error.value)


def test_files_write_json_is_what_wrote_the_manifest(prepared, tmp_path):
    """The manifest holds no time and no place: only what the input decides."""
    output, manifest = prepared
    files.write_json(tmp_path / "m.json", dataclasses.asdict(manifest))
    text = (output / "manifest.json").read_text()
    assert (tmp_path / "m.json").read_text() == text
    assert str(output.parent) not in text and "/tmp" not in text
