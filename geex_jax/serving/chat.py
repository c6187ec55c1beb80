"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from geex_jax.errors import GeexError
from geex_jax.serving import answers, asking, logprobs
from geex_jax.serving.bodies import ChatBody, parse
from geex_jax.serving.errors import refused
from geex_jax.serving.running import Run, while_connected
from geex_jax.serving.state import state_of


async def chat(http: HttpRequest) -> Response:
    """Writes the assistant's next turn."""
    state = state_of(http)
    body = parse(ChatBody, await state.read(http))
    served = state.catalogue.get(body.model)
    messages = [{"role": _role(m.role), "content": m.text} for m in body.messages]
    size = sum(len(m["content"]) for m in messages)
    asking.too_long(served, size // served.longest_token, "at least ")
    size += 64 * len(messages)  # each is some work, however short
    try:
        ids = await asking.in_thread(size, lambda: served.chat.encode(messages))
    except GeexError as error:
        raise refused(error, "messages") from None
    if body.language:
        ids = served.tokenizer.encode(asking.tag_of(body.language)) + ids
    # OpenAI calls the older name deprecated: where both are given, the newer one counts.
    newer = body.max_completion_tokens
    asked = body.max_tokens if newer is None else newer
    tokens = asking.room(served, [ids], asked, served.context)
    top = body.top_logprobs or 0
    params = asking.sampling(
        served, body, tokens,
        stop=(*body.stops, *served.chat.stops),
        logprobs=top if body.logprobs else None,
        deadline=state.settings.deadline,
    )  # fmt: skip
    run = Run(served, asking.requests_of(served, [ids], params, body.stream), state.metrics)
    if body.stream:
        return answers.EventStream(run, _events(run, body, top))
    async with while_connected(http.receive), run:
        samples = await run.samples()
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": s.text, "refusal": None},
            "logprobs": logprobs.chat(served, s.logprobs or [], top) if body.logprobs else None,
            "finish_reason": answers.FINISH[s.finish or "length"],
            "finish_detail": s.finish,
        }
        for index, s in enumerate(samples)
    ]
    head = answers.head("chat.completion", "chatcmpl", served.name)
    return answers.answer(head | {"choices": choices, "usage": run.usage()})


async def _events(run: Run, body: ChatBody, top: int) -> AsyncIterator[bytes]:
    head = answers.head("chat.completion.chunk", "chatcmpl", run.served.name)

    def chunk(index: int, delta: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None} | more
        return answers.event(head | {"choices": [choice]})

    for index in range(body.n or 1):
        yield chunk(index, {"role": "assistant", "content": ""})
    async for arrived in run.pieces(answers.IDLE_SECONDS):
        if arrived is None:
            yield b": waiting\n\n"
            continue
        index, piece = arrived
        if piece.text or piece.logprobs:
            found = logprobs.chat(run.served, piece.logprobs or [], top) if body.logprobs else None
            yield chunk(index, {"content": piece.text}, logprobs=found)
        if piece.finish:
            finish = answers.FINISH[piece.finish]
            yield chunk(index, {}, finish_reason=finish, finish_detail=piece.finish)
    if body.wants_usage:
        yield answers.event(head | {"choices": [], "usage": run.usage()})
    yield answers.DONE


def _role(name: str) -> str:
    return "system" if name == "developer" else name
