"""Samples from a server that speaks OpenAI's protocol: completions, or chat where it has only that.

Standard library only. The key is read from the environment variable OPENAI_API_KEY.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from geex_jax.benchmark.humaneval_x import prompts, tasks, truncation
from geex_jax.benchmark.humaneval_x.sources import Settings
from geex_jax.errors import GeexError

LONGEST_PAUSE = 60.0
_LATER = {408, 409, 425, 429, 500, 502, 503, 504, 529}
# What a server may not know; it is left out after the first refusal that names it.
_OPTIONAL = ("seed", "top_p", "stop", "n")


class Endpoint:
    """A server as a generator, for `sources.collect`.

    Args:
      url: its address, with or without /v1.
      model: the model's name there.
      parallel: requests under way at once.
      timeout: seconds until an answer must begin.
      tries: how often a request is sent that the server is too busy for, or that is lost.
      chat: True or False to force a protocol; None to find out.
      pause: called with seconds before a request is sent again.

    Attributes:
      chat: whether the model is talked to; None until the first answer.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        parallel: int = 8,
        timeout: float = 600.0,
        tries: int = 8,
        chat: bool | None = None,
        pause: Callable[[float], None] = time.sleep,
    ):
        if not url.startswith(("http://", "https://")):
            raise GeexError(f"endpoint {url!r}", "give a URL such as http://localhost:8000/v1")
        base = url.rstrip("/").removesuffix("/completions").removesuffix("/chat")
        self.base = base if base.endswith("/v1") else base + "/v1"
        self.model, self.parallel, self.timeout, self.tries = model, parallel, timeout, tries
        self.chat, self._pause = chat, pause
        self._dropped: set[str] = set()
        self._renamed = False  # max_tokens to max_completion_tokens
        self._lock = threading.Lock()

    def __call__(self, prompts: list[str], settings: Settings) -> list[list[str]]:
        """Asks for all prompts, several at once; texts in the order of the prompts."""
        rows = [settings.first_row + i * settings.samples for i in range(len(prompts))]
        if self.chat is None and prompts:  # one alone finds out which protocol it is
            first = self._samples(prompts[0], settings, rows[0])
            return [first, *self._all(prompts[1:], settings, rows[1:])]
        return self._all(prompts, settings, rows)

    def _all(self, asked: list[str], settings: Settings, rows: list[int]) -> list[list[str]]:
        with concurrent.futures.ThreadPoolExecutor(max(self.parallel, 1)) as pool:
            futures = [
                pool.submit(self._samples, p, settings, r) for p, r in zip(asked, rows, strict=True)
            ]
            try:
                return [f.result() for f in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _samples(self, prompt: str, settings: Settings, row: int) -> list[str]:
        texts: list[str] = []
        while len(texts) < settings.samples:  # a server may give fewer at once than asked for
            missing = settings.samples - len(texts)
            answer = self._ask(prompt, settings, row + len(texts), missing)
            got = [_text(choice) for choice in answer.get("choices") or []]
            if not got:
                raise GeexError(f"{self.base} answered without choices", "is it OpenAI's protocol?")
            texts += got[:missing]
        return texts

    def _ask(self, prompt: str, settings: Settings, row: int, count: int) -> dict[str, Any]:
        """One request; finds out on the way what the server does not know."""
        while True:
            chat = bool(self.chat)
            body: dict[str, Any] = {
                "model": self.model,
                "temperature": settings.temperature,
                "max_completion_tokens" if self._renamed else "max_tokens": settings.max_tokens,
                "top_p": settings.top_p or 1.0,
                "seed": settings.seed + row,
                "n": count,
            }
            stops = truncation.STOPS.get(settings.language, ())
            if chat:
                content = as_chat(prompt, settings.language)
                body["messages"] = [{"role": "user", "content": content}]
            else:
                body |= {"prompt": prompt} | ({"stop": list(stops)} if stops else {})
            body = {k: v for k, v in body.items() if k not in self._dropped}
            try:
                answer = self._post("/chat/completions" if chat else "/completions", body)
            except _Refused as refusal:
                if not self._learn(refusal, body):
                    raise refusal.error(self) from None
                continue
            self.chat = chat
            return answer

    def _learn(self, refusal: _Refused, body: dict[str, Any]) -> bool:
        """Whether the refusal says what to ask otherwise."""
        said = refusal.said.lower()
        with self._lock:
            if "max_completion_tokens" in said and "max_tokens" in body:
                self._renamed = True
                return True
            if refusal.status in (400, 422):
                for name in _OPTIONAL:
                    if name in body and (f"'{name}'" in said or f'"{name}"' in said):
                        self._dropped.add(name)
                        return True
            only_chat = refusal.status in (404, 405, 501) or "chat" in said
            if self.chat is None and "prompt" in body and only_chat:
                self.chat = True
                return True
            # Another thread may have learned it while this request was under way.
            return bool(self.chat) and "prompt" in body

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body).encode()
        wait = 1.0
        for attempt in range(1, self.tries + 1):
            try:
                request = urllib.request.Request(self.base + path, data, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    value = json.loads(answer.read())
                if not isinstance(value, dict):
                    raise ValueError("not an object")
                return value
            except urllib.error.HTTPError as error:
                said = _said(error)
                if error.code not in _LATER:
                    raise _Refused(error.code, said) from None
                problem, after = (
                    f"status {error.code}: {said}",
                    error.headers.get("Retry-After", ""),
                )
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                problem, after = str(reason) or type(error).__name__, ""
            if attempt < self.tries:
                self._pause(min(float(after) if _is_number(after) else wait, LONGEST_PAUSE))
                wait = min(2 * wait, LONGEST_PAUSE)
        raise GeexError(
            f"{self.base + path} did not answer in {self.tries} tries ({problem})",
            "is the server up? What was sampled is kept: the same command goes on",
        )


class _Refused(Exception):
    """An answer that says no, and will again."""

    def __init__(self, status: int, said: str):
        super().__init__(said)
        self.status, self.said = status, said

    def error(self, endpoint: Endpoint) -> GeexError:
        what = f"{endpoint.base} refuses: status {self.status}"
        what += f" ({self.said})" if self.said else ""
        if self.status in (401, 403):
            return GeexError(what, "set OPENAI_API_KEY to a key that it accepts")
        if self.status == 404:
            return GeexError(what, f"check the URL, and that it serves model {endpoint.model!r}")
        return GeexError(what, "see the server's log")


def as_chat(prompt: str, language: str) -> str:
    """The same task as a request in words, unless the prompt is one already."""
    if "```" in prompt or not language:
        return prompt
    template, known = prompts.get("instruct"), tasks.names(language)
    fence = prompts.fence(known)
    return template.prompt.replace("{{title}}", known.title).replace("{{fence}}", fence).replace(
        "{{prompt|trim}}", prompt.strip("\n"))  # fmt: skip


def _text(choice: dict[str, Any]) -> str:
    text = choice.get("text")
    if text is None:
        text = (choice.get("message") or {}).get("content")
    return text if isinstance(text, str) else ""


def _said(error: urllib.error.HTTPError) -> str:
    """The message in an error's body, in one line."""
    try:
        text = error.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        value = json.loads(text)
        value = value.get("error", value) if isinstance(value, dict) else value
        text = str(value.get("message", value) if isinstance(value, dict) else value)
    except ValueError:
        pass
    return " ".join(text.split())[:300]


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
