"""The paper's product: `POST /v1/translate` and `POST /v1/explain`, both by prompts alone.

Translation asks in the form of the paper (HumanEval-X), which models of the CodeGeeX family are
evaluated with; the code ends where the paper's rule for the target language says so. Explanation
puts the code before a comment that announces an explanation and takes the comment lines that
follow. No model here was trained for it, and every answer says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from geex_jax import languages
from geex_jax.inference.requests import Request
from geex_jax.serving import answers, asking
from geex_jax.serving.bodies import ExplainBody, Product, TranslateBody, parse
from geex_jax.serving.comments import CommentLines
from geex_jax.serving.running import Run, while_connected
from geex_jax.serving.state import State, state_of

USUAL_TOKENS = 512
TRANSLATION_NOTE = (
    "Written by prompting a code model with the paper's translation prompt. Nothing was compiled "
    "or run: test it before you use it."
)
EXPLANATION_NOTE = (
    "Written by prompting a code model that was not trained to explain; small models often "
    "explain wrongly or repeat themselves. Check every sentence against the code."
)


def translation_prompt(
    source: str, from_: languages.Language, to: languages.Language, declaration: str = ""
) -> str:
    """The paper's prompt: the code under its language's name, then the other language's name."""
    head = f"code translation\n{from_.name}:\n{source.rstrip()}\n{to.name}:\n"
    return head + declaration


def explanation_prompt(source: str, language: languages.Language) -> str:
    """The code, then a comment that announces what it does."""
    sign, *closing = language.comment
    head = f"{language.tag}\n{source.rstrip()}\n\n{sign} Explanation of the code above:"
    # A block goes on behind its sign; a comment line is followed by another one.
    return head if closing else f"{head}\n{sign}"


async def translate(http: HttpRequest) -> Response:
    """Translates code from one language to another."""
    state = state_of(http)
    body = parse(TranslateBody, await state.read(http))
    from_ = asking.language_of(body.from_, "from")
    to = asking.language_of(body.to, "to")
    declaration = body.declaration or ""
    prompt = translation_prompt(body.source, from_, to, declaration)
    rule = to.slug if to.slug in languages.WITH_END_RULE and declaration else None
    head = {"from": from_.name, "to": to.name, "note": TRANSLATION_NOTE}
    stop = ("\ncode translation\n", f"\n{from_.name}:\n")
    return await _written(
        http, state, body, prompt, "translation", "code", head, end_rule=rule, stop=stop
    )


async def explain(http: HttpRequest) -> Response:
    """Explains code in comment lines."""
    state = state_of(http)
    body = parse(ExplainBody, await state.read(http))
    language = asking.language_of(body.language, "language")
    prompt = explanation_prompt(body.source, language)
    head = {"language": language.name, "note": EXPLANATION_NOTE}
    lines = CommentLines(language.comment)
    return await _written(
        http, state, body, prompt, "explanation", "explanation", head, lines=lines
    )


async def _written(
    http: HttpRequest,
    state: State,
    body: Product,
    prompt: str,
    kind: str,
    field: str,
    about: dict[str, Any],
    *,
    lines: CommentLines | None = None,
    **settings: Any,
) -> Response:
    served = state.catalogue.get(body.model)
    ids = await asking.encode(served, prompt)
    tokens = asking.room(served, [ids], body.max_tokens, USUAL_TOKENS)
    params = asking.product_sampling(
        served, body, tokens, deadline=state.settings.deadline, **settings
    )
    run = Run(served, [Request(tuple(ids), params)], state.metrics)
    head = answers.head(kind, kind, served.name) | about
    parts = _parts(run, lines)
    if body.stream:
        return answers.EventStream(run, _events(run, parts, head, field))
    text, finish = "", "length"
    async with while_connected(http.receive), run:
        async for part in parts:
            text, finish = text + (part[0] if part else ""), part[1] if part else finish
    return answers.answer(head | {field: text, "finish_reason": finish, "usage": run.usage()})


async def _parts(
    run: Run, lines: CommentLines | None
) -> AsyncIterator[tuple[str, str | None] | None]:
    """(new text, how it ended) of the one choice; None for a pause."""
    async for arrived in run.pieces(answers.IDLE_SECONDS):
        if arrived is None:
            yield None
            continue
        piece = arrived[1]
        text, finish = piece.text, piece.finish and answers.FINISH[piece.finish]
        if lines is not None:
            text = lines.push(text) + (lines.flush() if finish else "")
            finish = "stop" if lines.stopped else finish
        if text or finish:
            yield text, finish
        if finish:
            return


async def _events(
    run: Run,
    parts: AsyncIterator[tuple[str, str | None] | None],
    head: dict[str, Any],
    field: str,
) -> AsyncIterator[bytes]:
    async for part in parts:
        if part is None:
            yield b": waiting\n\n"
            continue
        last = {"usage": run.usage()} if part[1] else {}
        yield answers.event(head | {field: part[0], "finish_reason": part[1]} | last)
    yield answers.DONE
