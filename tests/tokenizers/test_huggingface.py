"""`tokenizer.json` files."""

import json

import pytest

from geex_jax import tokenizers
from geex_jax.errors import GeexError


def _core(files):
    from tokenizers import Tokenizer

    return Tokenizer.from_buffer(files["tokenizer.json"])


def test_ids_are_the_librarys(huggingface, huggingface_files, sources):
    core = _core(huggingface_files)
    for text in sources[:10]:
        expected = core.encode(text, add_special_tokens=False).ids
        assert huggingface.encode(text) == expected
        assert huggingface.decode(expected) == core.decode(expected, skip_special_tokens=False)


def test_ends_come_from_the_settings(huggingface, huggingface_files):
    core = _core(huggingface_files)
    assert huggingface.eos_id == core.token_to_id("<|endoftext|>")
    assert huggingface.pad_id == core.token_to_id("<pad>") != huggingface.eos_id


def test_special_strings_are_text_unless_asked(huggingface):
    text = "a<|endoftext|>b<pad>"
    ids = huggingface.encode(text)
    assert huggingface.eos_id not in ids and huggingface.decode(ids) == text
    asked = huggingface.encode(text, allow_special=True)
    assert asked.count(huggingface.eos_id) == asked.count(huggingface.pad_id) == 1
    assert huggingface.decode(asked) == text


def test_added_tokens_that_are_not_special_count_their_bytes(huggingface):
    ids = huggingface.encode("x<fim>éy")
    assert len(ids) == 3
    assert huggingface.token_byte_lengths()[ids].tolist() == [1, 7, 1]


def test_a_cut_length_in_the_file_is_ignored(huggingface_files):
    core = _core(huggingface_files)
    core.enable_truncation(4)
    core.enable_padding(length=8)
    contents = {**huggingface_files, "tokenizer.json": core.to_str().encode()}
    tokenizer = tokenizers.HuggingFaceTokenizer(contents)
    text = "return the whole text, not four tokens of it"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.pad_id not in tokenizer.encode("x")


def test_the_usual_end_is_found_without_settings(huggingface_files):
    bare = {"tokenizer.json": huggingface_files["tokenizer.json"]}
    tokenizer = tokenizers.HuggingFaceTokenizer(bare)
    assert tokenizer.decode([tokenizer.eos_id]) == "<|endoftext|>"
    assert tokenizer.pad_id == tokenizer.eos_id
    numbered = {**bare, "config.json": b'{"eos_token_id": [7, 8], "pad_token_id": 9}'}
    tokenizer = tokenizers.HuggingFaceTokenizer(numbered)
    assert (tokenizer.eos_id, tokenizer.pad_id) == (7, 9)


def test_no_end_at_all_is_refused(huggingface_files):
    spec = json.loads(huggingface_files["tokenizer.json"])
    text = json.dumps(spec).replace("<|endoftext|>", "<|stop|>")
    with pytest.raises(GeexError, match="end-of-text"):
        tokenizers.HuggingFaceTokenizer({"tokenizer.json": text.encode()})


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"\xff\xfe", b"[]"])
def test_damaged_files_are_refused(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(GeexError, match="truncated or not usable") as error:
        tokenizers.load(tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_settings_are_refused(huggingface_files):
    contents = {**huggingface_files, "tokenizer_config.json": b"{"}
    with pytest.raises(GeexError, match=r"tokenizer_config\.json is truncated"):
        tokenizers.HuggingFaceTokenizer(contents)


def test_pieces_with_u2581_and_bytes(sources):
    """The layout of Llama's file: space as U+2581, byte pieces, a space put first."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocab = {"<unk>": 0, "</s>": 1, **{f"<0x{b:02X}>": 2 + b for b in range(256)}}
    for piece in ("\u2581", "a", "b", "\u2581a"):
        vocab[piece] = len(vocab)
    bpe = models.BPE(vocab, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True)
    core = Tokenizer(bpe)
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    core.add_special_tokens(["</s>"])
    tokenizer = tokenizers.HuggingFaceTokenizer({"tokenizer.json": core.to_str().encode()})
    ids = tokenizer.encode("a é b")
    assert tokenizer.decode(ids) == "a é b" == core.decode(ids)
    stream = tokenizers.StreamDecoder(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.flush() == "a é b"
