"""`/tokenize`, `/detokenize`, `/tokenizer_info`: vLLM's routes, for clients that count tokens.

With them lm-eval scores a model without a copy of its tokenizer. Text is text: a control string in
it is not its control token, but for a prompt that is the end-of-text string alone, which is how
lm-eval asks for that id.
"""

from __future__ import annotations

import functools
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from geex_jax.errors import GeexError
from geex_jax.serving import answers, asking
from geex_jax.serving.bodies import DetokenizeBody, TokenizeBody, parse
from geex_jax.serving.errors import ApiError, refused
from geex_jax.serving.state import state_of
from geex_jax.tokenizers import Tokenizer

USUAL_ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>")


def end_string(tokenizer: Tokenizer) -> str:
    """What the end-of-text token is called."""
    known = (tokenizer.decode([tokenizer.eos_id]), *USUAL_ENDS)
    wanted = [tokenizer.eos_id]
    found = (s for s in known if s and tokenizer.encode(s, allow_special=True) == wanted)
    return next(found, USUAL_ENDS[0])


async def tokenize(http: HttpRequest) -> Response:
    """Ids of a text. No id is added to it, whatever `add_special_tokens` says."""
    state = state_of(http)
    body = parse(TokenizeBody, await state.read(http))
    served = state.catalogue.get(body.model)
    tokenizer = served.tokenizer

    def work() -> tuple[list[int], list[str] | None]:
        whole = body.prompt == end_string(tokenizer)
        ids = [tokenizer.eos_id] if whole else tokenizer.encode(body.prompt)
        return ids, [served.text_of(i) for i in ids] if body.return_token_strs else None

    try:
        ids, texts = await asking.in_thread(len(body.prompt), work)
    except GeexError as error:
        raise refused(error, "prompt") from None
    return answers.answer(
        {"count": len(ids), "max_model_len": served.context, "tokens": ids, "token_strs": texts}
    )


async def detokenize(http: HttpRequest) -> Response:
    """The text of ids."""
    state = state_of(http)
    body = parse(DetokenizeBody, await state.read(http))
    served = state.catalogue.get(body.model)
    if body.tokens and not 0 <= min(body.tokens) <= max(body.tokens) < served.vocab_size:
        raise ApiError(
            400, f"tokens: an id outside 0..{served.vocab_size - 1}", param="tokens"
        )  # fmt: skip
    work = functools.partial(served.tokenizer.decode, body.tokens)
    text = await asking.in_thread(4 * len(body.tokens), work)
    return answers.answer({"prompt": text})


async def tokenizer_info(http: HttpRequest) -> Response:
    """What the tokenizer of `?model=` is, of the first model by default."""
    served = state_of(http).catalogue.get(http.query_params.get("model"))
    tokenizer = served.tokenizer
    about: dict[str, Any] = {
        "tokenizer_class": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "eos_token": end_string(tokenizer),
        "eos_token_id": tokenizer.eos_id,
        "bos_token": None,
        "pad_token": None,
        "fingerprint": tokenizer.fingerprint(),
    }
    return answers.answer(about)
