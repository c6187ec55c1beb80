"""Many clients, clients that go, clients that do not read; and nothing left behind."""

import asyncio
import contextlib
import gc
import json
import select
import socket
import threading

import httpx
import psutil
import pytest

from geex_jax.serving import Settings
from tests.serving.fakes import FakeEngine, served
from tests.serving.servers import running, wait_for

COMPLETIONS = "/v1/completions"
IDLE = {"slots_busy": 0, "queue": 0}


@pytest.fixture
def engine():
    return FakeEngine(slots=4, pause=0.002)


def ask(client, **body):
    """A socket whose request has been sent, for what well-behaved clients do not do."""
    data = json.dumps({"prompt": "a", **body}).encode()
    sock = socket.create_connection(("127.0.0.1", client.port))
    sock.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(data), data)
    )
    return sock


def test_sixty_four_clients_at_once_each_get_their_own_text(engine):
    async def one(http, seed):
        body = {"prompt": "a", "max_tokens": 20, "seed": seed, "stream": seed % 2 == 0}
        answer = await http.post(COMPLETIONS, json=body)
        if body["stream"]:
            events = answer.text.split("\n\n")[:-2]
            chunks = [json.loads(e.removeprefix("data: ")) for e in events]
            return seed, "".join(c["choices"][0]["text"] for c in chunks)
        return seed, answer.json()["choices"][0]["text"]

    async def all_of_them(url):
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            return await asyncio.gather(*(one(http, seed) for seed in range(64)))

    with running([served(engine=engine)]) as client:
        for seed, text in asyncio.run(all_of_them(client.base_url)):
            assert text == "".join(chr(97 + (seed + i) % 26) for i in range(20))
        assert engine.stats() == IDLE


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_slot(engine, stream):
    with running([served(engine=engine)]) as client:
        sockets = [ask(client, max_tokens=4000, n=2, stream=stream) for _ in range(6)]
        wait_for(lambda: engine.stats() == {"slots_busy": 4, "queue": 2})
        if stream:
            assert sockets[0].recv(100)
        for sock in sockets:
            sock.close()
        wait_for(lambda: engine.stats() == IDLE)
        wait_for(lambda: "geex_clients_gone_total 6.0" in client.get("/metrics").text)
        assert client.app.state.serving.running <= 1
        assert client.post(COMPLETIONS, json={"prompt": "a"}).status_code == 200


def test_a_client_that_goes_while_sending(engine):
    with running([served(engine=engine)]) as client:
        sock = socket.create_connection(("127.0.0.1", client.port))
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        wait_for(lambda: client.app.state.serving.running == 1)
        sock.close()
        wait_for(lambda: client.app.state.serving.running == 0)
    with running([served()], Settings(read_seconds=0.05)) as client:
        sock = socket.create_connection(("127.0.0.1", client.port))
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert b"408" in sock.recv(1000)  # it never sends the rest
        sock.close()


def test_clients_that_send_too_slowly():
    with running([served()], Settings(read_seconds=0.3)) as client:
        state = client.app.state.serving
        silent, half, dribble = (
            socket.create_connection(("127.0.0.1", client.port), 30) for _ in range(3)
        )
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost:")
        dribble.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")

        def refused():  # never silent for long, and never done
            with contextlib.suppress(OSError):
                dribble.sendall(b" ")
            return bool(select.select([dribble], [], [], 0.05)[0])

        wait_for(refused)
        assert b" 408 " in dribble.recv(1000)
        assert silent.recv(1) == half.recv(1) == b""  # no head of a request: hung up
        assert client.get("/health").status_code == 200 and state.reading == 0
        for sock in (silent, half, dribble):
            sock.close()


def test_unfinished_bodies_do_not_fill_the_memory():
    with running([served()], Settings(max_body=1000)) as client:
        state = client.app.state.serving
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        sockets = []
        for sent in range(33):
            wait_for(lambda sent=sent: state.reading == 999 * min(sent, 32))
            sockets.append(socket.create_connection(("127.0.0.1", client.port)))
            sockets[-1].sendall(head + b" " * 999)
        assert b" 429 " in sockets[-1].recv(1000)
        for sock in sockets:
            sock.close()
        wait_for(lambda: state.reading == 0 and state.running == 0)


def test_what_fails_before_it_is_answered_leaves_no_request_behind(monkeypatch):
    engine = FakeEngine(gate=threading.Event())
    model = served(engine=engine)
    monkeypatch.setattr(model.tokenizer, "decode", lambda ids: 1 / 0)  # the echo of ids
    with running([model]) as client:
        answer = client.post(COMPLETIONS, json={"prompt": [65], "echo": True})
        assert answer.status_code == 500 and not engine.seen


def test_a_slow_reader_gets_all_of_it_in_fewer_pieces():
    engine = FakeEngine(slots=8)
    with running([served(engine=engine)]) as client:
        # Small buffers, so that the server has to wait long before the engine is done.
        sock = ask(client, max_tokens=4000, n=8, seed=0, stream=True)
        wait_for(lambda: engine.seen and engine.stats() == IDLE)  # the slot does not wait for it
        data = b""
        while not data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            part = sock.recv(4096)
            assert part
            data += part
        sock.close()
    lines = [x for x in data.decode().split("\n") if x.startswith("data: {")]
    texts = [""] * 8
    for line in lines:
        choice = json.loads(line.removeprefix("data: "))["choices"][0]
        texts[choice["index"]] += choice["text"]
    alphabet = "".join(chr(97 + i % 26) for i in range(4100))
    assert texts == [alphabet[i : i + 4000] for i in range(8)]
    assert len(lines) < 8 * 4000  # what had to wait was joined


def test_a_client_that_never_reads_is_cut_off(caplog):
    engine = FakeEngine(slots=1, pause=0.0005)
    with running([served(engine=engine)], Settings(stall_seconds=1.0)) as client:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", client.port))
        # With log-probabilities a token is some hundred bytes: more than the system buffers.
        data = json.dumps({"prompt": "a", "max_tokens": 4000, "n": 32, "logprobs": 20,
                           "stream": True, "ignore_eos": True}).encode()  # fmt: skip
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                     % (len(data), data))  # fmt: skip
        wait_for(lambda: client.app.state.serving.running == 1)
        wait_for(lambda: client.app.state.serving.running == 0, 60)
        wait_for(lambda: engine.stats() == IDLE)
        assert "cut off a client that does not read" in caplog.text
        sock.close()
        assert client.post(COMPLETIONS, json={"prompt": "a"}).status_code == 200


def test_hundreds_of_requests_leave_nothing_behind():
    engine = FakeEngine(slots=4)
    process = psutil.Process()

    def some(client, count):
        for i in range(count):
            kind = i % 5
            if kind == 0:
                ask(client, max_tokens=500, stream=True).close()
            elif kind == 1:
                client.post(COMPLETIONS, content=b"{", headers={"Content-Type": "application/json"})
            elif kind == 2:
                client.post(COMPLETIONS, json={"prompt": "x" * 20_000})
            else:
                client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 9, "n": 2})

    with running([served(engine=engine)]) as client:
        state = client.app.state.serving

        def settled():
            wait_for(lambda: engine.stats() == IDLE and state.running == 0)
            engine.seen.clear()
            gc.collect()
            return process.num_fds(), threading.active_count(), len(gc.get_objects())

        some(client, 100)
        files, threads, objects = settled()
        some(client, 500)
        after = settled()
        assert after[0] <= files + 2 and after[1] <= threads + 1
        assert after[2] <= objects + 500  # one object a request would be 500
