"""`load`: which kind, and what it says when there is none."""

import subprocess
import sys

import pytest

from geex_jax import tokenizers
from geex_jax.errors import GeexError
from geex_jax.tokenizers import base


def _write(folder, contents):
    folder.mkdir(exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


def test_plain_folders_and_files_are_recognised(
    tmp_path, tiny_codegeex_files, huggingface_files, sentencepiece
):
    codegeex = _write(tmp_path / "a", tiny_codegeex_files)
    assert tokenizers.load(codegeex).kind == "codegeex"
    assert tokenizers.load(str(codegeex / "vocab.json")).kind == "codegeex"
    rival = _write(tmp_path / "b", huggingface_files)
    assert tokenizers.load(rival).kind == "huggingface"
    assert tokenizers.load(rival / "tokenizer.json").kind == "huggingface"
    sentencepiece.save(tmp_path / "c")
    (tmp_path / "c" / base.MARKER).unlink()
    (tmp_path / "c" / "tokenizer.model").rename(tmp_path / "c" / "other.model")
    assert tokenizers.load(tmp_path / "c").kind == "sentencepiece"


def test_a_folder_with_both_is_the_rivals_unless_asked(
    tmp_path, tiny_codegeex_files, huggingface_files
):
    both = _write(tmp_path / "both", {**tiny_codegeex_files, **huggingface_files})
    assert tokenizers.load(both).kind == "huggingface"
    assert tokenizers.load(both, kind="codegeex").kind == "codegeex"
    with pytest.raises(GeexError, match="did you mean codegeex"):
        tokenizers.load(both, kind="codegeeks")


def test_saving_another_kind_into_the_folder_wins(tmp_path, tokenizer, codegeex):
    codegeex.save(tmp_path)
    tokenizer.save(tmp_path)
    assert tokenizers.load(tmp_path).fingerprint() == tokenizer.fingerprint()


def test_a_folder_changed_after_saving_is_refused(tmp_path, tokenizer, sentencepiece):
    tokenizer.save(tmp_path)
    marker = tmp_path / base.MARKER
    marker.write_text(marker.read_text().replace(tokenizer.fingerprint(), "0" * 16))
    with pytest.raises(GeexError, match="not the one that was saved"):
        tokenizers.load(tmp_path)
    marker.write_text("{")
    with pytest.raises(GeexError, match="damaged"):
        tokenizers.load(tmp_path)
    marker.write_text('{"kind": "other"}')
    with pytest.raises(GeexError, match="unknown kind"):
        tokenizers.load(tmp_path)


def test_nothing_there_is_said_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "two").mkdir()
    for name in ("a.model", "b.model"):
        (tmp_path / "two" / name).write_bytes(b"x")
    cases = [
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path / "notes.txt", "is no tokenizer"),
        (tmp_path, "no tokenizer in"),
        (tmp_path / "two", r"2 \*\.model files"),
    ]
    for spec, message in cases:
        with pytest.raises(GeexError, match=message) as error:
            tokenizers.load(spec)
        assert "\n" not in str(error.value) and error.value.remedy


@pytest.mark.parametrize("spec", ["org/name", "org/name@main", "codegeex"])
def test_without_network_the_files_to_bring_are_named(monkeypatch, spec):
    import huggingface_hub

    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(GeexError, match=r"hub does not give it.*vocab\.json.*added_tokens\.json"):
        tokenizers.load(spec)


def test_a_hub_id_opens_what_the_hub_gives(
    monkeypatch, tmp_path, tiny_codegeex_files, huggingface_files
):
    import huggingface_hub

    both = _write(tmp_path / "cache", {**tiny_codegeex_files, **huggingface_files})
    asked = []

    def give(name, revision=None, allow_patterns=None):
        asked.append((name, revision))
        return str(both)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    assert tokenizers.load("org/name@v1").kind == "huggingface"
    assert tokenizers.load("codegeex").kind == "codegeex"
    assert asked == [("org/name", "v1"), ("EleutherAI/gpt-j-6B", None)]


def test_the_import_is_light():
    code = (
        "import sys, geex_jax.tokenizers as t; "
        "print([m for m in ('jax', 'tokenizers', 'huggingface_hub', 'sentencepiece', "
        "'tiktoken', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
