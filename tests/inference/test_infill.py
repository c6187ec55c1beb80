"""Fill-in prompts by the tokenizer's own control tokens; an answer ends at them."""

import json

import pytest

from geex_jax.errors import GeexError
from geex_jax.inference import SamplingParams, complete, infill
from geex_jax.inference.infill import FORMS, PREFIX, SUFFIX
from geex_jax.tokenizers.codegeex import byte_alphabet
from geex_jax.tokenizers.huggingface import HuggingFaceTokenizer
from tests.inference.helpers import ByteTokenizer, small_model


def tokenizer(*special):
    """Bytes, an end of text, and control tokens."""
    words = byte_alphabet()
    added = ["<|endoftext|>", *[s for s in special if s != "<|endoftext|>"]]
    spec = {
        "version": "1.0",
        "added_tokens": [
            {"id": 256 + i, "content": text, "special": True, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False}
            for i, text in enumerate(added)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "vocab": words, "merges": []},
    }  # fmt: skip
    return HuggingFaceTokenizer({"tokenizer.json": json.dumps(spec).encode()})


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_each_form_is_found_and_laid_out_as_its_models_learned_it(form):
    tokens = [p for p in form.parts if p not in (PREFIX, SUFFIX)]
    words = tokenizer(*dict.fromkeys([*tokens, *form.ends]))
    # Control strings within the texts stay text: nobody closes the hole from inside.
    before, after = f"def f(x):\n    {tokens[0]}", "\n    return y\n"
    found = infill(words, before, after)
    assert found.form == form.name
    expected = []
    for part in form.parts:
        text = {PREFIX: before, SUFFIX: after}.get(part)
        expected += words.encode(part, allow_special=True) if text is None else words.encode(text)
    assert list(found.prompt) == expected
    assert [words.decode([e]) for e in found.ends] == list(form.ends)
    assert sum(t >= 256 for t in found.prompt) == len(tokens)


def test_models_without_fill_in_tokens_say_so():
    for words in (ByteTokenizer(), tokenizer(), tokenizer("<fim_prefix>", "<fim_suffix>")):
        with pytest.raises(GeexError, match="CodeGeeX has none"):
            infill(words, "a", "b")


def test_an_answer_ends_at_the_models_own_tokens():
    words = tokenizer(*["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>", "<file_sep>"])
    model, params = small_model()
    ask = {"max_new_tokens": 10, "temperature": 3.0, "seed": 1}
    free = complete(model, params, words, ["x = "], SamplingParams(**ask), suffix="\n")[0]
    assert free.finish == "length" and len(free.tokens) == 10
    ends = words.encode("<file_sep>", allow_special=True)
    pushed = SamplingParams(**ask, logit_bias={ends[0]: 50.0})
    cut = complete(model, params, words, ["x = "], pushed, suffix="\n")[0]
    assert cut.finish == "stop" and cut.tokens == [] and cut.text == ""
