"""What is refused, with which status, and always in OpenAI's shape."""

import functools
import json
import threading

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geex_jax.serving import Settings
from tests.serving.fakes import FakeEngine, served
from tests.serving.servers import running, wait_for

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def client():
    with running([served()], Settings(max_body=300_000)) as client:
        yield client


def error_of(answer):
    """The error object, which has exactly OpenAI's four fields."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["message"] and "\n" not in body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETIONS, {"prompt": 3}, "prompt"),
        (COMPLETIONS, {"prompt": []}, "prompt"),
        (COMPLETIONS, {"prompt": [[1, "a"]]}, "prompt"),
        (COMPLETIONS, {"prompt": [1.5]}, "prompt"),
        (COMPLETIONS, {"prompt": {"text": "a"}}, "prompt"),
        (COMPLETIONS, {"prompt": [99999]}, "prompt"),
        (COMPLETIONS, {"prompt": [-1]}, "prompt"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": "5"}, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": -1}, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": True}, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 4096}, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, "n"),
        (COMPLETIONS, {"prompt": "a", "n": 129}, "n"),
        (COMPLETIONS, {"prompt": ["a"] * 200, "n": 2}, "prompt"),
        (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature"),
        (COMPLETIONS, {"prompt": "a", "temperature": "hot"}, "temperature"),
        (COMPLETIONS, {"prompt": "a", "top_p": 1.1}, "top_p"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 21}, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, "stop"),
        (COMPLETIONS, {"prompt": "a", "stop": ["x"] * 17}, "stop"),
        (COMPLETIONS, {"prompt": "a", "stop": 5}, "stop"),
        (COMPLETIONS, {"prompt": "a", "stream": "yes"}, "stream"),
        (COMPLETIONS, {"prompt": "a", "seed": 2**64}, "seed"),
        (COMPLETIONS, {"prompt": "a", "seed": 1.5}, "seed"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"999": 1}}, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"5": 101}}, "logit_bias.5"),
        (COMPLETIONS, {"prompt": "a", "best_of": 4}, "best_of"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 20, "n": 128, "max_tokens": 999}, "logprobs"),
        (CHAT, {"messages": HI, "logprobs": True, "top_logprobs": 20, "n": 64}, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix"),
        (COMPLETIONS, {"prompt": "a", "language": "pyhton"}, "language"),
        (COMPLETIONS, {"prompt": "a", "end_rule": "sql"}, "end_rule"),
        (COMPLETIONS, {"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "hi"}, "messages"),
        (CHAT, {"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        (CHAT, {"messages": HI, "tools": [{"type": "function"}]}, "tools"),
        (CHAT, {"messages": HI, "response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"messages": HI, "top_logprobs": 2}, "top_logprobs"),
        ("/v1/translate", {"source": "a", "to": "go"}, "from"),
        ("/v1/translate", {"source": "a", "to": "gopher", "from": "c"}, "to"),
        ("/v1/translate", {"source": "", "to": "go", "from": "c"}, "source"),
        ("/v1/explain", {"source": "a", "language": 5}, "language"),
    ],
)  # fmt: skip
def test_wrong_types_and_values_are_400_and_name_the_field(client, path, body, param):
    answer = client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["type"] == "invalid_request_error" and error["param"] == param


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"prompt": NaN}',
     b'{"prompt": "\\ud800"}', b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a"} x',
     b'{"prompt": "a", "seed": 1e999}', b"prompt=a"],
    ids=range(12),
)  # fmt: skip
def test_garbage_is_400(client, data):
    for path in (COMPLETIONS, CHAT, "/v1/translate", "/v1/explain"):
        answer = client.post(path, content=data, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        error_of(answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
FIELDS = [
    "prompt",
    "messages",
    "max_tokens",
    "n",
    "stop",
    "logprobs",
    "logit_bias",
    "seed",
    "echo",
    "suffix",
    "stream_options",
    "temperature",
    "source",
    "from",
    "to",
    "language",
    "top_k",
]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from([COMPLETIONS, CHAT, "/v1/translate", "/v1/explain"]),
    body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5),
)
def test_whatever_comes_is_answered_or_refused_properly(client, path, body):
    answer = client.post(path, json=body | {"max_tokens": 3})
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        error_of(answer)


def test_unknown_models_paths_and_methods(client):
    answer = client.post(COMPLETIONS, json={"prompt": "a", "model": "fkae"})
    error = error_of(answer)
    assert answer.status_code == 404 and error["code"] == "model_not_found"
    assert "did you mean fake?" in error["message"] and error["param"] == "model"
    assert client.get("/v1/models/nothing").status_code == 404
    for method, path, status in [
        ("GET", COMPLETIONS, 405), ("DELETE", "/v1/models", 405), ("POST", "/health", 405),
        ("GET", "/v1/engines", 404), ("GET", "/../etc/passwd", 404), ("GET", "/page.py", 404),
        ("POST", "/v1/%00%ff", 404),
    ]:  # fmt: skip
        answer = client.request(method, path)
        assert answer.status_code == status, (method, path)
        error_of(answer)


def test_prompts_that_are_too_long(client):
    for prompt in ("x" * 4096, [65] * 4096, "é" * 2500):
        answer = client.post(COMPLETIONS, json={"prompt": prompt})
        error = error_of(answer)
        assert answer.status_code == 400 and error["code"] == "context_length_exceeded"
        assert "4096" in error["message"]
    answer = client.post(CHAT, json={"messages": [{"role": "user", "content": "x" * 5000}]})
    assert error_of(answer)["code"] == "context_length_exceeded"
    assert client.post(COMPLETIONS, json={"prompt": "x" * 4095}).status_code == 200


def test_ten_megabytes(client):
    answer = client.post(COMPLETIONS, json={"prompt": "x" * 10_000_000})
    assert answer.status_code == 413 and error_of(answer)["code"] == "body_too_large"
    assert client.post(COMPLETIONS, json={"prompt": "x"}).status_code == 200
    with running([served()], Settings(max_body=16 << 20)) as roomy:  # read, and then too long
        for prompt in ("x" * 10_000_000, [65] * 3_000_000):
            answer = roomy.post(COMPLETIONS, json={"prompt": prompt})
            assert answer.status_code == 400
            assert error_of(answer)["code"] == "context_length_exceeded"


def test_only_json_is_read(client):
    # What a page elsewhere may post without being asked: forms and plain text.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client.post(
            COMPLETIONS, content=b'{"prompt": "a"}', headers={"Content-Type": kind}
        )
        assert answer.status_code == 415
        error_of(answer)


def test_a_page_elsewhere_cannot_post_without_a_type(client):
    # fetch(url, {body: new Blob([...])}) sends no type, and a browser does not ask before it.
    with httpx.Client(base_url=client.base_url) as bare:
        post = functools.partial(bare.post, COMPLETIONS, content=b'{"prompt": "a"}')
        assert post().status_code == 200
        assert post(headers={"Origin": "https://evil.example"}).status_code == 415
        packed = post(headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 415 and "gzip" in error_of(packed)["message"]


def test_too_many_prompts_are_refused_before_they_are_encoded(monkeypatch):
    model = served()
    monkeypatch.setattr(model.tokenizer, "encode", lambda *_, **__: pytest.fail("encoded"))
    with running([model]) as client:
        for body in ({"prompt": ["a"] * 300}, {"prompt": ["a"] * 150, "n": 2, "suffix": "b"}):
            answer = client.post(COMPLETIONS, json=body)
            assert answer.status_code == 400 and error_of(answer)["code"] == "too_many_prompts"


def test_a_deadline_before_the_first_token_is_504():
    with running([served(gate=threading.Event())], Settings(deadline=0.05)) as client:
        answer = client.post(COMPLETIONS, json={"prompt": ["a", "b"]})
        assert answer.status_code == 504 and error_of(answer)["code"] == "deadline"
    with running([served(pause=0.02)], Settings(deadline=0.2)) as client:  # and it ends there
        answer = client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 1000})
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["finish_detail"] == "deadline"


def test_a_full_queue_is_429_with_retry_after():
    gate = threading.Event()
    engine = FakeEngine(slots=1, max_waiting=2, gate=gate)
    with running([served(engine=engine)]) as client:
        body = {"json": {"prompt": "a"}}
        held = [
            threading.Thread(target=client.post, args=(COMPLETIONS,), kwargs=body) for _ in range(3)
        ]
        for thread in held:
            thread.start()
        wait_for(lambda: engine.stats() == {"slots_busy": 1, "queue": 2})
        answer = client.post(COMPLETIONS, json={"prompt": ["b", "c"]})
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        error = error_of(answer)
        assert error["type"] == "rate_limit_error" and error["code"] == "queue_full"
        gate.set()
        for thread in held:
            thread.join()


def test_an_engine_that_fails():
    with running([served(fail_at=3)]) as client:
        answer = client.post(COMPLETIONS, json={"prompt": "a"})
        assert answer.status_code == 500
        assert "the chip caught fire" in error_of(answer)["message"]
        with client.stream("POST", COMPLETIONS, json={"prompt": "a", "stream": True}) as answer:
            events = "".join(answer.iter_text()).split("\n\n")
        assert "caught fire" in json.loads(events[-2].removeprefix("data: "))["error"]["message"]
        assert client.get("/health").status_code == 200
        # It gives up in the end, as the real one does after some failures in a row.
        client.app.state.serving.catalogue.get(None).engine.stop()
        answer = client.get("/health")
        assert answer.status_code == 503 and answer.json()["status"] == "failed"
        assert client.post(COMPLETIONS, json={"prompt": "a"}).status_code == 503


def test_keys_hosts_and_origins():
    doors = Settings(api_keys=("one", "zwei"), cors=("https://good.example",), hosts=("127.0.0.1",))
    with running([served()], doors) as client:
        for word in (None, "Bearer on", "one", "Basic one", "Bearer \xff"):
            raw = {} if word is None else {"Authorization": word.encode("latin-1")}
            for method, path in (
                ("POST", COMPLETIONS),
                ("GET", "/v1/x"),
                ("GET", "/tokenizer_info"),
            ):
                answer = client.request(method, path, headers=raw)
                assert answer.status_code == 401
                assert error_of(answer)["code"] == "invalid_api_key"
        good = {"Authorization": "Bearer zwei"}
        assert client.post(COMPLETIONS, json={"prompt": "a"}, headers=good).status_code == 200
        for path in ("/", "/health", "/v1/health", "/metrics"):
            assert client.get(path).status_code == 200
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403
        asks = {"Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
        allowed = "access-control-allow-origin"
        answer = client.options(COMPLETIONS, headers=asks | {"Origin": "https://good.example"})
        assert answer.status_code == 200 and answer.headers[allowed] == "https://good.example"
        answer = client.options(COMPLETIONS, headers=asks | {"Origin": "https://evil.example"})
        assert allowed not in answer.headers
    with running([served()]) as client:  # and none are allowed unless told
        answer = client.get("/v1/models", headers={"Origin": "https://good.example"})
        assert allowed not in answer.headers


def test_a_draining_server_takes_nothing_new():
    gate = threading.Event()
    with running([served(gate=gate)]) as client:
        answers = []
        runs = threading.Thread(
            target=lambda: answers.append(client.post(COMPLETIONS, json={"prompt": "a"}))
        )
        runs.start()
        wait_for(lambda: "geex_requests_running 2.0" in client.get("/metrics").text)
        client.app.state.serving.draining = True
        answer = client.post(COMPLETIONS, json={"prompt": "b"})
        assert answer.status_code == 503 and "retry-after" in answer.headers
        assert error_of(answer)["code"] == "draining"
        assert client.get("/health").status_code == 503
        gate.set()
        runs.join()
        assert answers[0].status_code == 200  # what runs is finished
