"""SentencePiece: training on code, and models of others."""

import io

import pytest
import sentencepiece

from geex_jax import tokenizers
from geex_jax.errors import GeexError
from geex_jax.tokenizers import spm


def test_training_is_repeatable(sources):
    first = tokenizers.train_sentencepiece(iter(sources[:8]), None, 512)
    second = tokenizers.train_sentencepiece(sources[:8], None, 512)
    assert first.fingerprint() == second.fingerprint()
    other = tokenizers.train_sentencepiece(sources[8:16], None, 512)
    assert other.fingerprint() != first.fingerprint()


def test_training_saves_what_load_opens(sources, tmp_path):
    trained = tokenizers.train_sentencepiece(sources[:8], tmp_path, 512)
    assert trained.vocab_size == 512
    for spec in (tmp_path, tmp_path / "tokenizer.model"):
        assert tokenizers.load(spec).fingerprint() == trained.fingerprint()


def test_whitespace_runs_are_single_pieces(sentencepiece):
    for run in spm.WHITESPACE_PIECES:
        assert len(sentencepiece.encode(run)) == 1, repr(run)
    assert len(sentencepiece.encode("x\n        y")) == 3


def test_control_pieces_in_a_text_stay_text(sentencepiece):
    text = "<s> </s> <unk> <pad> <0x0A>"
    ids = sentencepiece.encode(text)
    assert not set(ids) & {0, 1, 2, 3} and sentencepiece.decode(ids) == text
    asked = sentencepiece.encode(text, allow_special=True)
    assert {1, 2, 3} <= set(asked)


def test_the_model_file_is_plain_sentencepiece(sentencepiece, sources, tmp_path):
    sentencepiece.save(tmp_path)
    plain = __import__("sentencepiece").SentencePieceProcessor(
        model_file=str(tmp_path / spm.MODEL_FILE)
    )
    for text in sources[30:40]:
        assert plain.encode(text) == sentencepiece.encode(text)
        assert plain.decode(plain.encode(text)) == text


def test_files_of_another_language_and_line_end_round_trip(sentencepiece):
    text = "\ufeff// 注释\r\nint main() {\r\n\t\treturn 0; // ▁\r\n}\0\r"
    assert sentencepiece.decode(sentencepiece.encode(text)) == text


def test_too_large_a_vocabulary_names_the_largest(sources):
    few = ["def f(x):\n    return x\n"] * 50
    with pytest.raises(GeexError, match="too large") as error:
        tokenizers.train_sentencepiece(few, None, 8192)
    largest = int("".join(c for c in error.value.remedy.split(",")[0] if c.isdigit()))
    if largest >= spm.MIN_VOCAB_SIZE:
        assert tokenizers.train_sentencepiece(few, None, largest).vocab_size == largest


def test_largest_vocabulary_in_the_message_works(sources):
    text = sources[:1]
    with pytest.raises(GeexError, match="too large") as error:
        tokenizers.train_sentencepiece(text, None, 60_000)
    largest = int(error.value.remedy.split()[3].rstrip(","))
    assert tokenizers.train_sentencepiece(text, None, largest).vocab_size == largest


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        ([], 512, "no text"),
        (["\n\n"], 512, "no text"),
        (["x"], 100, "no room for bytes"),
        (["".join(map(chr, range(0x4E00, 0x5E00)))], 400, "too small for the characters"),
    ],
)
def test_training_mistakes_are_one_line(texts, size, message):
    with pytest.raises(GeexError, match=message) as error:
        tokenizers.train_sentencepiece(texts, None, size)
    assert "\n" not in str(error.value) and error.value.remedy


def test_very_long_lines_are_cut(sources):
    one_line = " ".join(sources[0].split())
    assert len(one_line) > 4096
    assert tokenizers.train_sentencepiece([one_line], None, 512).vocab_size == 512


@pytest.mark.parametrize("data", [b"", b"no model", b"\x00" * 100])
def test_a_file_that_is_no_model_is_refused(tmp_path, data):
    (tmp_path / "x.model").write_bytes(data)
    with pytest.raises(GeexError, match="not a SentencePiece model"):
        tokenizers.load(tmp_path / "x.model")


def test_a_truncated_model_is_refused(sentencepiece, tmp_path):
    sentencepiece.save(tmp_path)
    path = tmp_path / spm.MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(GeexError):
        tokenizers.load(tmp_path)


def test_a_model_that_puts_a_space_first_loses_it_again(sources):
    """The settings of most published models."""
    model = io.BytesIO()
    lines = [line for line in sources[0].splitlines() if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=420, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2,
    )  # fmt: skip
    tokenizer = tokenizers.SentencePieceTokenizer(model.getvalue())
    text = "return self\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    stream = tokenizers.StreamDecoder(tokenizer)
    assert "".join(map(stream.push, [1, *ids])) + stream.flush() == text
