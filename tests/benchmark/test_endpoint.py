"""A server that speaks OpenAI's protocol, played on the loopback address."""

import http.server
import json
import threading

import pytest

from geex_jax.benchmark.humaneval_x import prompts, sources
from geex_jax.benchmark.humaneval_x.endpoint import Endpoint
from geex_jax.benchmark.humaneval_x.generations import Generations
from geex_jax.benchmark.humaneval_x.sources import Settings
from geex_jax.errors import GeexError

PROBLEM = {
    "task_id": "Python/0", "prompt": "def f(x):\n", "declaration": "def f(x):\n",
    "canonical_solution": "    return x\n", "test": "",
}  # fmt: skip


class Server(http.server.BaseHTTPRequestHandler):
    """Answers from a list of (status, body or function of the request), the last one for ever."""

    protocol_version = "HTTP/1.1"
    script: list
    asked: list
    lock: threading.Lock

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.asked.append((self.path, body, self.headers.get("Authorization")))
            status, answer = self.script[0]
            if len(self.script) > 1:
                self.script.pop(0)
        if callable(answer):
            answer = answer(self.path, body)
        if status == "drop":
            self.close_connection = True
            return
        if isinstance(answer, tuple):
            status, answer = answer
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = type("Played", (Server,), {"script": [], "asked": [], "lock": threading.Lock()})
    played = http.server.ThreadingHTTPServer(("127.0.0.1", 0), state)
    threading.Thread(target=played.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{played.server_port}"
    yield state
    played.shutdown()
    played.server_close()


def complete(path, body):
    """As many completions as asked for, that say for what."""
    return {
        "choices": [
            {"text": f"{body['prompt']}{body['seed'] + i}"} for i in range(body.get("n", 1))
        ]
    }


def chat(path, body):
    if path == "/v1/completions":
        return 404, {"error": {"message": "This is a chat model"}}
    text = "Sure.\n```python\ndef f(y):\n    return y\n```"
    return {"choices": [{"message": {"content": text}} for _ in range(body.get("n", 1))]}


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/completions", "/v1/chat/completions"])
def test_completions(server, monkeypatch, path):
    server.script = [(200, complete)]
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    settings = Settings(samples=2, temperature=0.2, top_p=0.9, max_tokens=99, seed=10,
                        language="python", first_row=4)  # fmt: skip
    made = Endpoint(server.url + path, "m")(["a", "b", "c"], settings)
    assert made == [["a14", "a15"], ["b16", "b17"], ["c18", "c19"]]
    path, body, key = server.asked[0]
    assert path == "/v1/completions" and key == "Bearer secret"
    assert body == {
        "model": "m", "prompt": "a", "n": 2, "temperature": 0.2, "top_p": 0.9, "max_tokens": 99,
        "seed": 14, "stop": ["\ndef ", "\nclass ", "\nif ", "\nprint("],
    }  # fmt: skip


def test_servers_that_give_one_at_a_time_are_asked_again(server):
    server.script = [(200, lambda path, body: {"choices": complete(path, body)["choices"][:1]})]
    made = Endpoint(server.url, "m")(["a"], Settings(samples=3, seed=0))
    assert made == [["a0", "a1", "a2"]] and len(server.asked) == 3


def test_busy_and_lost_connections_are_tried_again(server):
    pauses = []
    server.script = [(429, "slow"), (503, "down"), ("drop", ""), (200, "no json"), (200, complete)]
    endpoint = Endpoint(server.url, "m", pause=pauses.append)
    assert endpoint(["a"], Settings(seed=0)) == [["a0"]]
    assert pauses == [7.0, 2.0, 4.0, 8.0]  # the first is what the server asked for
    pauses.clear()
    server.script = [(500, {"error": {"message": "out of\nmemory"}})]
    with pytest.raises(GeexError, match=r"in 8 tries \(status 500: out of memory\)") as error:
        endpoint(["a"], Settings())
    assert "\n" not in str(error.value) and len(pauses) == 7 and max(pauses) <= 60


def test_nobody_there(server):
    endpoint = Endpoint("http://127.0.0.1:1", "m", tries=2, pause=lambda seconds: None)
    with pytest.raises(GeexError, match=r"did not answer in 2 tries \(.*refused.*is the server up"):
        endpoint(["a"], Settings())
    with pytest.raises(GeexError, match="give a URL"):
        Endpoint("localhost:80", "m")


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "set OPENAI_API_KEY"), (403, "set OPENAI_API_KEY"), (404, "serves model 'm'"),
     (400, r"status 400 \(no such thing\)")],
)  # fmt: skip
def test_refusals_are_final(server, status, message):
    server.script = [(status, {"error": {"message": "no such thing"}})]
    with pytest.raises(GeexError, match=message):
        Endpoint(server.url, "m", pause=lambda seconds: pytest.fail("tried again"))(
            ["a"], Settings()
        )


def test_what_a_server_does_not_know_is_left_out(server):
    def picky(path, body):
        for name in ("seed", "n"):
            if name in body:
                return 400, {"error": {"message": f"unknown parameter '{name}'"}}
        if "max_tokens" in body:
            return 400, {"error": {"message": "use 'max_completion_tokens' instead"}}
        return {"choices": [{"text": "x"}]}

    server.script = [(200, picky)]
    endpoint = Endpoint(server.url, "m")
    assert endpoint(["a", "b"], Settings(samples=2)) == [["x", "x"], ["x", "x"]]
    first = len(server.asked)
    endpoint(["c"], Settings(samples=2))
    assert len(server.asked) - first == 2  # it has learned


def test_chat_where_there_is_nothing_else(server, tmp_path):
    server.script = [(200, chat)]
    jobs = sources.make_jobs(prompts.get("plain"), {"python": [PROBLEM]}, "python")
    endpoint = Endpoint(server.url, "m")
    path = sources.collect(endpoint, jobs, tmp_path / "g.jsonl", Settings(samples=2))
    assert endpoint.chat
    content = server.asked[-1][1]["messages"][0]["content"]
    assert "```python\n# language: Python\ndef f(x):\n```" in content and "Python code" in content
    samples = list(Generations(path, {"Python/0": PROBLEM}))
    assert [(s.prompt, s.code) for s in samples] == [("def f(y):\n", "    return y\n")] * 2


def test_templates_in_words_are_sent_as_they_are(server, tmp_path):
    server.script = [(200, chat)]
    jobs = sources.make_jobs(
        prompts.get("chain-of-thought-instruct"), {"python": [PROBLEM]}, "python"
    )
    sources.collect(Endpoint(server.url, "m", chat=True), jobs, tmp_path / "g.jsonl", Settings())
    assert server.asked[0][0] == "/v1/chat/completions"
    assert server.asked[0][1]["messages"] == [{"role": "user", "content": jobs[0].prompt}]


def test_no_choices(server):
    server.script = [(200, {"choices": []})]
    with pytest.raises(GeexError, match="answered without choices"):
        Endpoint(server.url, "m")(["a"], Settings())


def test_a_failure_keeps_what_was_sampled(server, tmp_path):
    problems = [PROBLEM | {"task_id": f"Python/{i}"} for i in range(3)]
    jobs = sources.make_jobs(prompts.get("plain"), {"python": problems}, "python")
    server.script = [(200, complete), (200, complete), (401, "expired"), (200, complete)]
    path = tmp_path / "g.jsonl"
    with pytest.raises(GeexError, match="refuses: status 401"):
        sources.collect(Endpoint(server.url, "m"), jobs, path, Settings(), batch=1)
    assert path.read_bytes().count(b"\n") == 2
    sources.collect(Endpoint(server.url, "m"), jobs, path, Settings(), batch=1)
    assert [s.task_id for s in Generations(path, {p["task_id"]: p for p in problems})] == [
        "Python/0", "Python/1", "Python/2"
    ]  # fmt: skip
    assert len(server.asked) == 4
