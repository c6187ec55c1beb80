"""What all three kinds promise."""

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geex_jax import tokenizers
from geex_jax.errors import GeexError
from geex_jax.tokenizers import base

AWKWARD = [
    "",
    " ",
    "a" + " " * 25 + "b",
    "\t\n\r\n\r  \n\n        x\x0b\x0c\x85\x1c",
    "\u2581 \u2581\u2581x \u2581",
    "\ufeffBOM \ufffd \0 \x7f \U0010ffff e\u0301 한국 😀 \u200d",
    "<s></s><unk><pad><0x0A><|endoftext|><|extratoken_12|><fim>é",
    "if x:\r\n    return  'é'\n" * 3,
]
CODE = st.text(alphabet=st.sampled_from(list(" \t\n\r\u2581\0\u3000<|>sa0_é😀'")), max_size=60)
ANY = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=ANY | CODE)
def test_every_text_round_trips(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_byte_lengths()[ids].sum() == len(text.encode())


def test_real_files_round_trip_and_bytes_add_up(tokenizer, sources):
    lengths = tokenizer.token_byte_lengths()
    assert lengths.dtype == np.int32 and lengths.shape == (tokenizer.vocab_size,)
    for text in sources[20:40]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert lengths[ids].sum() == len(text.encode())


def test_a_batch_equals_one_by_one(tokenizer, sources):
    texts = [*sources[:30], *AWKWARD]
    expected = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == expected
    assert tokenizer.encode_batch(texts, num_workers=1) == expected
    assert tokenizer.encode_batch(texts, num_workers=3) == expected
    assert tokenizer.encode_batch([]) == []


def test_a_batch_takes_control_strings_on_demand(tokenizer):
    literal = "</s>" if tokenizer.kind == "sentencepiece" else "<|endoftext|>"
    texts = [f"a{literal}b", literal]
    assert all(tokenizer.eos_id in x for x in tokenizer.encode_batch(texts, allow_special=True))
    assert not any(tokenizer.eos_id in x for x in tokenizer.encode_batch(texts))
    assert tokenizer.encode(literal, allow_special=True) == [tokenizer.eos_id]


def test_control_tokens_count_no_bytes(tokenizer):
    lengths = tokenizer.token_byte_lengths()
    assert lengths[tokenizer.eos_id] == 0 and lengths[tokenizer.pad_id] == 0


def test_padded_ids_decode_to_nothing_and_negative_ones_are_refused(tokenizer):
    ids = tokenizer.encode("ab")
    padded = [ids[0], tokenizer.vocab_size, *ids[1:], tokenizer.vocab_size + 1000]
    assert tokenizer.decode(padded) == "ab"
    with pytest.raises(GeexError, match="negative"):
        tokenizer.decode([-1])


def test_decode_takes_arrays_and_generators(tokenizer):
    ids = tokenizer.encode("return x\n")
    assert tokenizer.decode(np.array(ids, np.int32)) == "return x\n"
    assert tokenizer.decode(i for i in ids) == "return x\n"


def test_what_is_no_text_is_refused_in_one_line(tokenizer):
    for wrong in ("a\udc80b", b"bytes", None, 3):
        with pytest.raises(GeexError, match=r"surrogate U\+DC80 at character 1|cannot encode") as e:
            tokenizer.encode(wrong)
        assert "\n" not in str(e.value)
    with pytest.raises(GeexError, match="surrogate"):
        tokenizer.encode_batch(["fine", "a\udc80b"])


def test_save_and_load_keep_everything(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    again = tokenizers.load(tmp_path / "new" / "folder")
    assert isinstance(again, base.Tokenizer)
    assert again.kind == tokenizer.kind
    assert again.fingerprint() == tokenizer.fingerprint()
    assert len(again.fingerprint()) == 16
    assert (again.vocab_size, again.eos_id, again.pad_id) == (
        tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id,
    )  # fmt: skip
    assert [again.encode(x) for x in AWKWARD] == [tokenizer.encode(x) for x in AWKWARD]
    assert not list((tmp_path / "new" / "folder").glob(".*tmp*"))


def test_saving_where_no_folder_can_be_is_one_line(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GeexError, match="cannot write"):
        tokenizer.save(tmp_path / "file" / "below")


def test_pickled_copies_encode_alike(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.fingerprint() == tokenizer.fingerprint()
    assert [again.encode(x) for x in AWKWARD] == [tokenizer.encode(x) for x in AWKWARD]


def test_kinds_have_different_fingerprints(codegeex, sentencepiece, huggingface):
    prints = {t.fingerprint() for t in (codegeex, sentencepiece, huggingface)}
    assert len(prints) == 3


def test_map_threads_keeps_the_order():
    texts = [str(i) * (i % 7) for i in range(500)]
    found = base.map_threads(lambda text: [len(text)], texts, 4, group_characters=10)
    assert found == [[len(text)] for text in texts]
