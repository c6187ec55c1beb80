"""The CodeGeeX vocabulary against the official fixtures, and its rules on a tiny one."""

import json
import re

import numpy as np
import pytest

from geex_jax import tokenizers
from geex_jax.errors import GeexError
from geex_jax.tokenizers import StreamDecoder
from geex_jax.tokenizers import codegeex as module
from tests.tokenizers.conftest import STDLIB


@pytest.fixture(scope="module")
def official(shared):
    return tokenizers.load(shared / "codegeex-tokenizer")


@pytest.fixture(scope="module")
def snippets(shared):
    lines = (shared / "fixtures/tokenizer/snippets.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_sizes_are_the_official_ones(official):
    assert (official.kind, official.vocab_size) == ("codegeex", 50400)
    assert official.eos_id == official.pad_id == 50256


def test_every_snippet_has_the_official_ids_and_text(official, snippets):
    assert len(snippets) >= 197
    for snippet in snippets:
        assert official.encode(snippet["text"], allow_special=True) == snippet["ids"]
        assert official.decode(snippet["ids"]) == snippet["decoded"]
    texts = [x["text"] for x in snippets]
    assert official.encode_batch(texts, allow_special=True) == [x["ids"] for x in snippets]


def test_by_default_only_control_strings_differ_and_nothing_is_lost(official, snippets):
    for snippet in snippets:
        ids = official.encode(snippet["text"])
        assert official.decode(ids) == snippet["text"]
        if snippet["category"] != "special":
            assert ids == snippet["ids"]


def test_the_big_file_has_the_official_ids(official, shared):
    text = (shared / "fixtures/tokenizer/big_100kb.txt").read_bytes().decode()
    stored = np.load(shared / "fixtures/tokenizer/big_100kb_ids.npz")
    expected = stored[stored.files[0]].tolist()
    assert official.encode(text) == expected
    assert official.decode(expected) == text


def test_odd_id_lists_decode_as_officially(official, shared):
    lines = (shared / "fixtures/tokenizer/decode_only.jsonl").read_text().splitlines()
    for case in map(json.loads, lines):
        assert official.decode(case["ids"]) == case["decoded"]
        stream = StreamDecoder(official)
        assert "".join(map(stream.push, case["ids"])) + stream.flush() == case["decoded"]


def test_official_bytes_add_up_over_the_standard_library(official):
    lengths = official.token_byte_lengths()
    texts = [p.read_bytes().decode() for p in sorted((STDLIB / "asyncio").glob("*.py"))]
    for text, ids in zip(texts, official.encode_batch(texts), strict=True):
        assert official.decode(ids) == text
        assert lengths[ids].sum() == len(text.encode())
    assert lengths[50266:50275].tolist() == list(range(2, 11))
    assert lengths[50275:].sum() == 0


def _replace_runs(text):
    for n in range(10, 1, -1):
        text = text.replace(" " * n, f"<|extratoken_{8 + n}|>")
    return text


def test_official_ids_on_random_whitespace(official, shared):
    """Against the library behind the official path, set up from the same files."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    folder = shared / "codegeex-tokenizer"
    bpe = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    reference = Tokenizer(bpe)
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    added = json.loads((folder / "added_tokens.json").read_bytes())
    by_id = sorted(added, key=added.__getitem__)
    reference.add_special_tokens([AddedToken(s, normalized=False) for s in by_id])
    rng = np.random.default_rng(0)
    pool = ["a", "é", "1", "=", "'s", "\n", "\t", "\r\n", "\u3000", "\x1c", "\x85", "<|endoftext|"]
    pool += [" " * n for n in (1, 1, 2, 3, 9, 10, 11, 12, 21)]
    for _ in range(400):
        text = "".join(rng.choice(pool, size=rng.integers(1, 14)))
        assert official.encode(text) == reference.encode(_replace_runs(text)).ids, repr(text)


@pytest.mark.parametrize(
    ("spaces", "expected"),
    [(1, [1]), (2, [2]), (10, [10]), (11, [10, 1]), (25, [10, 10, 5]), (32, [10, 10, 10, 2])],
)
def test_runs_of_spaces_longest_first(codegeex, spaces, expected):
    ids = codegeex.encode("x" + " " * spaces + "\n")
    lengths = codegeex.token_byte_lengths()[ids].tolist()
    if expected[-1] == 1:  # a single space belongs to the white space behind it
        assert codegeex.decode(ids[1:]) == " " * spaces + "\n"
    assert lengths[1 : 1 + len(expected)] == expected


def test_literal_control_strings_are_text_unless_asked(codegeex):
    text = 'x = "<|extratoken_12|>" # <|endoftext|><|extratoken_99|>'
    assert codegeex.decode(codegeex.encode(text)) == text
    ids = codegeex.encode(text, allow_special=True)
    assert codegeex.eos_id in ids
    assert codegeex.decode(ids) == 'x = "    " # <|endoftext|><|extratoken_99|>'


def test_very_long_white_space_is_encoded(codegeex):
    n = 400_000  # beyond what the pattern's engine can hold
    for text in ("\n" * n + "x", "a" + "\t" * n, "\n " * n, "b" + " " * 11 + "\n" * n + " x"):
        assert codegeex.decode(codegeex.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    ["\n" * 99 + "x", "a \n" + "\n" * 99 + "  b", "b" + " " * 11 + "\n\t" * 50 + " x",
     "\n" * 99, "c" + " " * 12 + "\n" * 99 + " " * 11 + "d", " " + "\n " * 80 + "é"],
)  # fmt: skip
def test_long_white_space_is_cut_as_the_pattern_cuts_it(codegeex, monkeypatch, text):
    expected = codegeex.encode(text)
    pattern = module._LONG_BLANK.pattern.replace(str(module._LONG), "30")
    monkeypatch.setattr(module, "_LONG", 30)
    monkeypatch.setattr(module, "_LONG_BLANK", re.compile(pattern))
    assert module._LONG_BLANK.search(text)
    assert codegeex.encode(text) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("merges.txt"), "needs"),
        (lambda f: f.update({"vocab.json": f["vocab.json"][:500]}), "truncated or not JSON"),
        (lambda f: f.update({"vocab.json": b"\xff\xfe"}), "truncated or not JSON"),
        (lambda f: f.update({"vocab.json": b'{"a": 0}'}), "not a whole GPT-2 vocabulary"),
        (lambda f: f.update({"vocab.json": b"[1]"}), "does not map"),
        (lambda f: f.update({"merges.txt": b"#version: 0.2\ni n\n"}), "do not belong together"),
        (lambda f: f.update({"merges.txt": b"a b\nb c\nc d\nd e\ne f\n"}), "merge 1"),
        (lambda f: f.update({"merges.txt": b"\xff"}), "not UTF-8"),
        (lambda f: f.update({"added_tokens.json": b"{}"}), "not CodeGeeX's"),
    ],
)
def test_damaged_files_are_named(tiny_codegeex_files, change, message):
    contents = dict(tiny_codegeex_files)
    change(contents)
    with pytest.raises(GeexError, match=message) as error:
        tokenizers.CodeGeeXTokenizer(contents)
    assert "bring" in error.value.remedy and "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path, tiny_codegeex_files):
    (tmp_path / "vocab.json").write_bytes(tiny_codegeex_files["vocab.json"])
    with pytest.raises(GeexError, match=r"no merges\.txt and no added_tokens\.json"):
        tokenizers.load(tmp_path)


def test_a_changed_vocabulary_changes_the_fingerprint(tiny_codegeex_files, codegeex):
    contents = dict(tiny_codegeex_files)
    contents["vocab.json"] = contents["vocab.json"].replace(b'"ret"', b'"reu"')
    contents["merges.txt"] = contents["merges.txt"].replace(b"re t", b"re u")
    other = tokenizers.CodeGeeXTokenizer(contents)
    assert other.fingerprint() != codegeex.fingerprint()
