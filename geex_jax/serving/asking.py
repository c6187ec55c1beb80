"""From a checked body to what the engine runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio.to_thread

from geex_jax import languages
from geex_jax.errors import GeexError
from geex_jax.inference.infill import Infill, infill
from geex_jax.inference.requests import Request, SamplingParams
from geex_jax.serving.bodies import CompletionBody, Product, Sampled
from geex_jax.serving.errors import ApiError, refused
from geex_jax.serving.served import Served

DEFAULT_TOKENS = 16  # OpenAI's, for completions
MOST_LOGPROBS = (1 << 20, 1 << 22)  # of an answer that is whole, of one that streams
SHORT = 4096  # characters that are encoded at once, without a thread

Result = TypeVar("Result")


async def in_thread(size: int, work: Callable[[], Result]) -> Result:
    """Does long work, judged by `size` in characters, beside the event loop."""
    return work() if size <= SHORT else await anyio.to_thread.run_sync(work)


async def prompts_of(
    served: Served, body: CompletionBody
) -> tuple[list[list[int]], tuple[int, ...]]:
    """The ids of each prompt of a completion: a text, ids, or a list of either.

    Returns:
      The prompts, and ids that end an answer besides end-of-text (of fill-in prompts).

    Raises:
      ApiError: 400 for an empty list, more prompts than can be queued, text that is too long or
        unusable, a suffix for a model that does not fill in, an unknown language.
    """
    prompt = "" if body.prompt is None else body.prompt
    head = tag_of(body.language)
    if isinstance(prompt, list) and not prompt:
        raise ApiError(400, "prompt: an empty list", param="prompt")
    if isinstance(prompt, str):
        given: Sequence[str | list[int]] = [prompt]
    elif isinstance(prompt[0], int):
        given = [prompt]  # type: ignore[list-item]
    else:
        given = prompt  # type: ignore[assignment]
    too_many(served, len(given) * (body.n or 1))
    if not body.suffix:
        size = sum(len(one) for one in given)  # long together is long, too
        return [await encode(served, one, head, size) for one in given], ()
    asked = [await _infill(served, head, one, body.suffix) for one in given]
    return [list(one.prompt) for one in asked], asked[0].ends


async def _infill(served: Served, head: str, before: str | list[int], after: str) -> Infill:
    if isinstance(before, list):
        raise ApiError(400, "suffix: it goes with a prompt of text, not of ids", param="suffix")
    size = len(before) + len(after)
    too_long(served, size // served.longest_token, "at least ")
    try:
        asked = await in_thread(size, lambda: infill(served.tokenizer, head + before, after))
    except GeexError as error:
        raise ApiError(400, str(error), param="suffix", code="unsupported_parameter") from None
    too_long(served, len(asked.prompt))
    return asked


async def encode(
    served: Served, prompt: str | list[int], head: str = "", size: int = 0
) -> list[int]:
    """Ids of a text or ids, behind `head`; an empty prompt starts a document.

    `size` is that of all that is encoded for the request, where it is more than this prompt.

    Raises:
      ApiError: 400, too long for the context whatever its ids are; or no text.
    """
    eos = [served.tokenizer.eos_id]
    if isinstance(prompt, list):
        too_long(served, len(prompt))
        if prompt and not 0 <= min(prompt) <= max(prompt) < served.vocab_size:
            raise ApiError(
                400, f"the prompt holds an id outside 0..{served.vocab_size - 1}; was it made by "
                "this model's tokenizer?", param="prompt",
            )  # fmt: skip
        return (served.tokenizer.encode(head) if head else []) + prompt or eos
    # No id stands for more bytes than the longest one: hopeless texts need not be encoded.
    too_long(served, len(prompt) // served.longest_token, "at least ")
    try:
        work = functools.partial(served.tokenizer.encode, head + prompt)
        ids = await in_thread(max(size, len(prompt)), work)
    except GeexError as error:
        raise refused(error, "prompt") from None
    too_long(served, len(ids))
    return ids or eos


def too_long(served: Served, tokens: int, about: str = "") -> None:
    """Refuses a prompt that fills the context.

    Raises:
      ApiError: 400.
    """
    if tokens >= served.context:
        raise ApiError(
            400, f"this model's maximum context length is {served.context} tokens, and the prompt "
            f"has {about}{tokens}; shorten it to {served.context - 1} or fewer",
            param="prompt", code="context_length_exceeded",
        )  # fmt: skip


def too_many(served: Served, choices: int) -> None:
    """Refuses more choices than the queue can ever hold.

    Raises:
      ApiError: 400.
    """
    if choices > served.queue:
        raise ApiError(
            400, f"{choices} completions in one request; this server takes {served.queue}",
            param="prompt", code="too_many_prompts",
        )  # fmt: skip


def tag_of(language: str | None) -> str:
    """The tag line of a language with its newline; "" for None.

    Raises:
      ApiError: 400, no such language.
    """
    return "" if language is None else language_of(language, "language").tag + "\n"


def language_of(name: str, param: str) -> languages.Language:
    """The language of that name or alias.

    Raises:
      ApiError: 400, no such language.
    """
    try:
        return languages.get(name[:100])
    except GeexError as error:
        raise refused(error, param) from None


def room(served: Served, prompts: Sequence[Sequence[int]], asked: int | None, usual: int) -> int:
    """Tokens that completions may have: what was asked for, else `usual` as far as there is room.

    Raises:
      ApiError: 400, what was asked for does not fit behind the longest prompt.
    """
    longest = max(len(p) for p in prompts)
    too_long(served, longest)
    left = served.context - longest
    if asked is None:
        return min(usual, left)
    if asked > left:
        raise ApiError(
            400, f"this model's maximum context length is {served.context} tokens; the prompt has "
            f"{longest}, and {asked} more were asked for; shorten one of them",
            param="max_tokens", code="context_length_exceeded",
        )  # fmt: skip
    return asked


def sampling(served: Served, body: Sampled, tokens: int, **more: object) -> SamplingParams:
    """The engine's settings.

    Args:
      served: the model. body: with the common fields. tokens: most for each completion.
      **more: fields of SamplingParams that the routes differ in.

    Raises:
      ApiError: 400, a setting out of the model's range.
    """
    top_p, top_k = _cuts(served, body.top_p, body.top_k)
    settings = {
        "max_new_tokens": tokens,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": body.min_p or 0.0,
        "repetition_penalty": body.repetition_penalty or 1.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "logit_bias": _bias(body),
        "stop": body.stops,
        "end_rule": body.end_rule,
        "seed": body.seed,
        "n": body.n or 1,
        "ignore_eos": bool(body.ignore_eos),
    }
    return checked(served, SamplingParams(**(settings | more)))  # type: ignore[arg-type]


def product_sampling(served: Served, body: Product, tokens: int, **more: object) -> SamplingParams:
    """The engine's settings for the product's routes, greedy unless told."""
    top_p, top_k = _cuts(served, body.top_p, None)
    settings = {
        "max_new_tokens": tokens,
        "temperature": body.temperature or 0.0,
        "top_p": top_p,
        "top_k": top_k,
        "seed": body.seed,
    }
    return checked(served, SamplingParams(**(settings | more)))  # type: ignore[arg-type]


def checked(served: Served, params: SamplingParams) -> SamplingParams:
    """`params`, if the model can do them.

    Raises:
      ApiError: 400, it cannot.
    """
    try:
        if params.end_rule is not None:
            languages.end_rule(params.end_rule[:100])
    except GeexError as error:
        raise refused(error, "end_rule") from None
    try:
        params.check(served.vocab_size)
    except GeexError as error:
        field = error.what.partition(" ")[0]  # "logit_bias of 5 for id 999"
        raise refused(error, field if hasattr(params, field) else None) from None
    return params


def requests_of(
    served: Served, prompts: Sequence[Sequence[int]], params: SamplingParams, stream: bool | None
) -> list[Request]:
    """One request for each prompt, whose answer goes as a `stream` or as a whole.

    Raises:
      ApiError: 400, more choices than the queue can ever hold, more log-probabilities than an
        answer can.
    """
    too_many(served, len(prompts) * params.n)
    if params.logprobs is not None:
        tokens = len(prompts) * params.max_new_tokens
        if params.prompt_logprobs:
            tokens += sum(len(p) for p in prompts)
        count, most = tokens * params.n * (1 + params.logprobs), MOST_LOGPROBS[bool(stream)]
        if count > most:
            raise ApiError(
                400, f"up to {count} log-probabilities in one answer; this server gives {most}: "
                "ask for fewer of them, fewer tokens or fewer choices", param="logprobs",
            )  # fmt: skip
    return [Request(tuple(p), params) for p in prompts]


def _cuts(served: Served, top_p: float | None, top_k: int | None) -> tuple[float, int]:
    """OpenAI's top_p and vLLM's top_k as the engine's, where 0 is off."""
    top_k = min(max(top_k or 0, 0), served.vocab_size)
    if top_p == 0:
        return 0.0, 1  # only the most likely token stays
    return (0.0 if top_p in (None, 1) else float(top_p or 0)), top_k


def _bias(body: Sampled) -> dict[int, float]:
    try:
        return {int(key): value for key, value in (body.logit_bias or {}).items()}
    except ValueError:
        raise ApiError(
            400, "logit_bias: its keys are token ids, as strings of digits", param="logit_bias"
        ) from None
