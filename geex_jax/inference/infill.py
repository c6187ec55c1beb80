"""Fill-in prompts: what stands before and after a hole, in the form that a model was trained with.

The form is found by the control tokens of the tokenizer. Models without such tokens (CodeGeeX,
CodeGen, GPT-NeoX) have never seen the task.
"""

from __future__ import annotations

import dataclasses

from geex_jax.errors import GeexError
from geex_jax.tokenizers import Tokenizer

PREFIX, SUFFIX = "{prefix}", "{suffix}"


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to ask.

    Attributes:
      name: of the models.
      parts: control tokens, PREFIX and SUFFIX in order.
      ends: control tokens that end the answer, those that the tokenizer has.
    """

    name: str
    parts: tuple[str, ...]
    ends: tuple[str, ...] = ()


FORMS: tuple[Form, ...] = (
    Form(
        "StarCoder",  # 2305.06161, 2402.19173
        ("<fim_prefix>", PREFIX, "<fim_suffix>", SUFFIX, "<fim_middle>"),
        ("<fim_pad>", "<file_sep>", "<fim_prefix>"),
    ),
    Form(
        "SantaCoder",  # 2301.03988
        ("<fim-prefix>", PREFIX, "<fim-suffix>", SUFFIX, "<fim-middle>"),
        ("<fim-pad>", "<fim-prefix>"),
    ),
    Form(
        "Qwen2.5-Coder",  # 2409.12186
        ("<|fim_prefix|>", PREFIX, "<|fim_suffix|>", SUFFIX, "<|fim_middle|>"),
        ("<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<|fim_prefix|>"),
    ),
    Form(
        "DeepSeek-Coder",  # 2401.14196
        ("<｜fim▁begin｜>", PREFIX, "<｜fim▁hole｜>", SUFFIX, "<｜fim▁end｜>"),
        ("<｜fim▁begin｜>",),
    ),
    Form(
        "Code Llama",  # 2308.12950
        ("▁<PRE>", PREFIX, "▁<SUF>", SUFFIX, "▁<MID>"),
        ("▁<EOT>",),
    ),
    Form(
        "InCoder",  # 2204.05999
        (PREFIX, "<|mask:0|>", SUFFIX, "<|mask:1|>", "<|mask:0|>"),
        ("<|endofmask|>",),
    ),
    Form(
        "CodeGen2",  # 2305.02309
        (PREFIX, "<mask_1>", SUFFIX, "<|endoftext|>", "<sep>", "<mask_1>"),
        ("<eom>",),
    ),
)


@dataclasses.dataclass(frozen=True)
class Infill:
    """A fill-in prompt.

    Attributes:
      prompt: its ids.
      ends: ids that end the answer besides end-of-text.
      form: the name of the form.
    """

    prompt: tuple[int, ...]
    ends: tuple[int, ...]
    form: str


def token_id(tokenizer: Tokenizer, text: str) -> int | None:
    """The id of a control token, None if the tokenizer has none of that text."""
    ids = tokenizer.encode(text, allow_special=True)
    return ids[0] if len(ids) == 1 and tokenizer.decode_bytes(ids) == text.encode() else None


def form_of(tokenizer: Tokenizer) -> Form | None:
    """The form whose control tokens the tokenizer has, None if it has none."""
    for form in FORMS:
        tokens = [part for part in form.parts if part not in (PREFIX, SUFFIX)]
        if all(token_id(tokenizer, token) is not None for token in tokens):
            return form
    return None


def infill(tokenizer: Tokenizer, prefix: str, suffix: str) -> Infill:
    """The prompt that asks for what stands between two texts.

    Raises:
      GeexError: the tokenizer has no fill-in tokens.
    """
    form = form_of(tokenizer)
    if form is None:
        raise GeexError(
            "this model cannot fill in: its tokenizer has no fill-in tokens (CodeGeeX has none)",
            "leave the suffix out, or use a model such as StarCoder2 or Qwen2.5-Coder",
        )
    ids: list[int] = []
    for part in form.parts:
        if part in (PREFIX, SUFFIX):
            ids += tokenizer.encode(prefix if part == PREFIX else suffix)
        else:
            number = token_id(tokenizer, part)
            assert number is not None
            ids.append(number)
    ends = (token_id(tokenizer, end) for end in form.ends)
    return Infill(tuple(ids), tuple(e for e in ends if e is not None), form.name)
