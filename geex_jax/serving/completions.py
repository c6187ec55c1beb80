"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from geex_jax.errors import GeexError
from geex_jax.inference.requests import Piece, Ticket
from geex_jax.serving import answers, asking
from geex_jax.serving.bodies import CompletionBody, parse
from geex_jax.serving.errors import refused
from geex_jax.serving.logprobs import Legacy
from geex_jax.serving.running import Run, while_connected
from geex_jax.serving.served import Served
from geex_jax.serving.state import state_of


async def completions(http: HttpRequest) -> Response:
    """Continues one prompt or several."""
    state = state_of(http)
    body = parse(CompletionBody, await state.read(http))
    served = state.catalogue.get(body.model)
    prompts, ends = await asking.prompts_of(served, body)
    tokens = asking.room(served, prompts, body.max_tokens, asking.DEFAULT_TOKENS)
    params = asking.sampling(
        served, body, tokens,
        logprobs=body.logprobs,
        prompt_logprobs=bool(body.echo) and body.logprobs is not None,
        stop_ids=ends,
        deadline=state.settings.deadline,
    )  # fmt: skip
    requests = asking.requests_of(served, prompts, params, body.stream)
    echoes = [await _echo(served, body, ids) for ids in prompts]
    head = answers.head("text_completion", "cmpl", served.name)
    # From here on the engine is at work: nothing may fail or wait before the run is entered.
    run = Run(served, requests, state.metrics)
    choices = [
        _Choice(served, body, index, run.tickets[index // params.n], echoes[index // params.n])
        for index in range(len(prompts) * params.n)
    ]
    if body.stream:
        return answers.EventStream(run, _events(run, body, head, choices))
    async with while_connected(http.receive), run:
        samples = await run.samples()
    found = [
        choice.object(Piece(0, s.tokens, s.text, s.logprobs, s.finish))
        for choice, s in zip(choices, samples, strict=True)
    ]
    return answers.answer(head | {"choices": found, "usage": run.usage()})


async def _echo(served: Served, body: CompletionBody, ids: Sequence[int]) -> str:
    if not body.echo:
        return ""
    if isinstance(body.prompt, str):
        return asking.tag_of(body.language) + body.prompt
    try:
        return await asking.in_thread(4 * len(ids), lambda: served.tokenizer.decode(ids))
    except GeexError as error:
        raise refused(error, "prompt") from None


async def _events(
    run: Run, body: CompletionBody, head: dict[str, Any], choices: Sequence[_Choice]
) -> AsyncIterator[bytes]:
    async for arrived in run.pieces(answers.IDLE_SECONDS):
        if arrived is None:
            yield b": waiting\n\n"
            continue
        index, piece = arrived
        if piece.text or piece.finish or piece.logprobs or choices[index].fresh:
            yield answers.event(head | {"choices": [choices[index].object(piece)]})
    if body.wants_usage:
        yield answers.event(head | {"choices": [], "usage": run.usage()})
    yield answers.DONE


class _Choice:
    """One choice: its echo goes before its first piece."""

    def __init__(self, served: Served, body: CompletionBody, index: int, ticket: Ticket, echo: str):
        self.index, self.ticket, self.echo = index, ticket, echo
        self.fresh = bool(body.echo)
        self._legacy = None if body.logprobs is None else Legacy(served, body.logprobs)

    def object(self, piece: Piece) -> dict[str, Any]:
        prompt, found, text = (), list(piece.logprobs or []), piece.text
        if self.fresh:
            self.fresh = False
            text = self.echo + text
            if self._legacy is not None:
                before = self.ticket.prompt_logprobs or []
                prompt = self.ticket.request.prompt[: len(before)]
                found = [*before, *found]
        finish = piece.finish and answers.FINISH[piece.finish]
        return {
            "index": self.index,
            "text": text,
            "logprobs": None if self._legacy is None else self._legacy.lists(prompt, found),
            "finish_reason": finish,
            "finish_detail": piece.finish,
        }
