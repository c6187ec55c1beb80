"""A `geex serve` process to measure, and a client thin enough not to be what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError

START_SECONDS = 900
PIECES = 512  # of the vocabulary that goes with random weights


def random_model(folder: files.Path, preset: str) -> pathlib.Path:
    """Writes a preset with random weights, and a vocabulary of this package's own source.

    Raises:
      GeexError: no such preset.
    """
    import jax
    import jax.numpy as jnp

    from geex_jax import checkpoints, models
    from geex_jax.tokenizers import train_sentencepiece

    config = models.preset(preset)
    model = models.Transformer(config)
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    sources = sorted(pathlib.Path(__file__).parent.glob("*.py"))
    tokenizer = train_sentencepiece([p.read_text() for p in sources], None, PIECES)
    return checkpoints.save_model(folder, config, params, tokenizer)


def context_of(checkpoint: files.Path) -> int:
    """Context length of a checkpoint."""
    from geex_jax.checkpoints.store import locate

    return int(locate(checkpoint)[0]["model"]["context_length"])


class Server:
    """A running `geex serve`. Attributes: `port`; `about`, the line it said when it was ready."""

    def __init__(self, process: subprocess.Popen[str], port: int, about: str):
        self._process, self.port, self.about = process, port, about

    def memory(self) -> float:
        """Resident memory in MB; 0 where /proc does not tell."""
        try:
            text = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0.0
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        return int(found[1]) / 1e3 if found else 0.0

    async def leftovers(self, seconds: float = 30.0) -> dict[str, float]:
        """Slots and queue of the first engine, after waiting for both to be empty."""
        end = time.monotonic() + seconds
        while True:
            async with Connection(self.port) as connection:
                text = await connection.get("/metrics")
            found = {
                key: sum(map(float, re.findall(rf"^geex_engine_{key}{{.*}} (\S+)$", text, re.M)))
                for key in ("slots_busy", "queue")
            }
            if not any(found.values()) or time.monotonic() > end:
                return found
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def start(checkpoint: files.Path, flags: Sequence[str] = ()) -> Iterator[Server]:
    """Runs `geex serve` on a free loopback port until the block ends.

    Args:
      checkpoint: what it serves. flags: more of its flags.

    Raises:
      GeexError: it did not come up; with its last words.
    """
    command = [sys.executable, "-m", "geex_jax", "serve", "--checkpoint", str(checkpoint)]
    environment = {k: v for k, v in os.environ.items() if k != "GEEX_API_KEY"}
    process = subprocess.Popen(
        [*command, "--port", "0", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment,
    )  # fmt: skip
    said: deque[str] = deque(maxlen=20)
    ready: list[str] = []
    readers = [
        threading.Thread(target=_follow, args=(process.stderr, said, sys.stderr), daemon=True),
        threading.Thread(target=_follow, args=(process.stdout, ready, None), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        end = time.monotonic() + START_SECONDS
        while not ready:
            if process.poll() is not None or time.monotonic() > end:
                readers[0].join(5)
                why = said[-1].strip() if said else "it said nothing"
                raise GeexError(f"geex serve did not start: {why}", "run it by hand to see more")
            time.sleep(0.05)
        port = re.search(r"http://[^ ]*:(\d+)", ready[0])
        assert port is not None, ready[0]
        yield Server(process, int(port[1]), ready[0].strip())
    finally:
        process.terminate()
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _follow(stream: Any, into: Any, echo: Any) -> None:
    for line in stream:
        into.append(line)
        if echo is not None:
            print(line, end="", file=echo, flush=True)


class Connection:
    """One keep-alive connection to a server on loopback, for `async with`."""

    def __init__(self, port: int):
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()

    async def drop(self) -> None:
        """Closes the connection, as a client that has gone does; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None

    async def get(self, path: str) -> str:
        """The body of a GET."""
        reader, status, length = await self._ask("GET", path, b"")
        body = await reader.readexactly(length or 0)
        if status != 200:
            raise ValueError(f"status {status}: {body[:200]!r}")
        return body.decode()

    async def stream(self, path: str, body: Any) -> AsyncIterator[dict[str, Any]]:
        """The objects of a stream of server-sent events.

        Raises:
          ValueError: a status other than 200, with the server's message.
          OSError, asyncio.IncompleteReadError: the connection broke.
        """
        reader, status, length = await self._ask("POST", path, json.dumps(body).encode())
        if status != 200:
            said = await reader.readexactly(length or 0)
            raise ValueError(f"status {status}: {said[:300].decode('utf-8', 'replace')}")
        while True:
            # Chunks' sizes stand in lines between the events; an event is one line.
            line = await reader.readline()
            if not line:
                raise asyncio.IncompleteReadError(b"", None)
            if line == b"0\r\n":
                await reader.readline()
                return
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])

    async def _ask(
        self, method: str, path: str, data: bytes
    ) -> tuple[asyncio.StreamReader, int, int | None]:
        """Sends a request; returns where its body comes from, its status and length."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.I)
        return self._reader, int(head.split()[1]), int(length[1]) if length else None
