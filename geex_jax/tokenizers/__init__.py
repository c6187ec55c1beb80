"""Text to ids and back: CodeGeeX byte-level BPE, SentencePiece, Hugging Face `tokenizer.json`.

    tokenizer = tokenizers.load("path/to/codegeex/tokenizer")
    ids = tokenizer.encode("for i in range(10):\\n    print(i)\\n")
    assert tokenizer.decode(ids) == "for i in range(10):\\n    print(i)\\n"

`load` opens any of the three; `base.Tokenizer` says what all of them do; `StreamDecoder` decodes
ids as they come; `train_sentencepiece` makes a new vocabulary.
"""

from geex_jax.tokenizers.base import Tokenizer
from geex_jax.tokenizers.codegeex import CodeGeeXTokenizer
from geex_jax.tokenizers.huggingface import HuggingFaceTokenizer
from geex_jax.tokenizers.loading import load
from geex_jax.tokenizers.spm import SentencePieceTokenizer, train_sentencepiece
from geex_jax.tokenizers.stream import StreamDecoder

__all__ = [
    "CodeGeeXTokenizer",
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "load",
    "train_sentencepiece",
]
