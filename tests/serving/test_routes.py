"""Every route with an engine whose text is known: what is asked, what comes back."""

import json
import re

import pytest

from geex_jax import languages
from geex_jax.benchmark.humaneval_x import prompts
from geex_jax.serving import Settings
from geex_jax.serving.app import STATIC
from geex_jax.serving.product import explanation_prompt, translation_prompt
from tests.serving.fakes import FakeEngine, served
from tests.serving.servers import running


@pytest.fixture(scope="module")
def engine():
    return FakeEngine()


@pytest.fixture(scope="module")
def client(engine):
    with running([served(engine=engine), served("other")], Settings(deadline=99.0)) as client:
        yield client


def asked(client, engine, path="/v1/completions", **body):
    """The answer, and what the engine was given for it."""
    before = len(engine.seen)
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json(), engine.seen[before:]


def streamed(client, path="/v1/completions", **body):
    """The objects of a stream, without [DONE], which must end it."""
    with client.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200 and "text/event-stream" in answer.headers["content-type"]
        events = "".join(answer.iter_text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(e.removeprefix("data: ")) for e in events[:-2]]


def test_a_completion_is_openais_object(client, engine):
    answer, [request] = asked(client, engine, prompt="hi", max_tokens=5, model="fake", user="me")
    choice = {"index": 0, "text": "abcde", "logprobs": None, "finish_reason": "length"}
    assert answer["choices"] == [choice | {"finish_detail": "length"}]
    assert answer["object"] == "text_completion" and answer["model"] == "fake"
    assert answer["id"].startswith("cmpl-") and answer["created"] > 1.7e9
    counts = [answer["usage"][f"{x}_tokens"] for x in ("prompt", "completion", "total")]
    assert counts == [2, 5, 7]
    params = request.params
    assert request.prompt == (104, 105) and params.max_new_tokens == 5 and params.deadline == 99.0
    assert (params.temperature, params.top_p, params.top_k, params.n) == (1.0, 0.0, 0, 1)


def test_every_setting_reaches_the_engine(client, engine):
    _, [request] = asked(
        client, engine, prompt="x", max_tokens=2, n=3, stop=["q", "zz"], seed=-1, temperature=0.5,
        top_p=0.25, top_k=7, min_p=0.125, presence_penalty=1, frequency_penalty=-0.5,
        repetition_penalty=1.5, logit_bias={"5": -100, "6": 1.5}, language="py", end_rule="python",
        ignore_eos=True, logprobs=2, something_else="ignored", best_of=3, suffix=None,
    )  # fmt: skip
    assert bytes(request.prompt) == b"# language: Python\nx"
    p = request.params
    assert (p.max_new_tokens, p.n, p.stop, p.seed) == (2, 3, ("q", "zz"), -1)
    assert (p.temperature, p.top_p, p.top_k, p.min_p) == (0.5, 0.25, 7, 0.125)
    assert (p.presence_penalty, p.frequency_penalty, p.repetition_penalty) == (1, -0.5, 1.5)
    assert p.logit_bias == {5: -100, 6: 1.5} and p.end_rule == "python" and p.ignore_eos
    assert p.logprobs == 2 and not p.prompt_logprobs
    _, [request] = asked(client, engine, prompt="x", top_p=0, temperature=0, top_k=-1)
    assert (request.params.top_k, request.params.top_p) == (1, 0.0)  # the smallest nucleus
    assert request.params.max_new_tokens == 16 and request.params.temperature == 0


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("hé", [b"h\xc3\xa9"]),
        (["a", "", "cc"], [b"a", None, b"cc"]),
        ([65, 66], [b"AB"]),
        ([[65], [66, 67]], [b"A", b"BC"]),
        (None, [None]),
    ],
)
def test_prompts_of_every_kind(client, engine, prompt, ids):
    answer, requests = asked(client, engine, prompt=prompt, max_tokens=1, n=2, echo=True)
    expected = [(256,) if text is None else tuple(text) for text in ids]
    assert [r.prompt for r in requests] == expected
    assert [c["index"] for c in answer["choices"]] == list(range(2 * len(ids)))
    texts = [(text or b"").decode() + letter for text in ids for letter in "ab"]
    assert [c["text"] for c in answer["choices"]] == texts


def test_log_probabilities_of_prompt_and_completion(client, engine):
    answer, [request] = asked(client, engine, prompt="xé", max_tokens=2, echo=True, logprobs=2)
    found = answer["choices"][0]["logprobs"]
    assert found["tokens"] == ["x", "bytes:\\xc3", "bytes:\\xa9", "a", "b"]
    assert found["token_logprobs"] == [None, -0.5, -0.5, -0.5, -0.5]
    assert found["top_logprobs"][0] is None and found["top_logprobs"][3] == {"a": -0.5, "?": -1.5}
    assert len(found["text_offset"]) == 5 and found["text_offset"][:2] == [0, 1]
    assert request.params.prompt_logprobs
    answer, _ = asked(client, engine, prompt="xy", max_tokens=0, echo=True, logprobs=0)
    assert answer["choices"][0]["text"] == "xy"
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, -0.5]
    assert answer["usage"]["completion_tokens"] == 0


def test_a_stream_says_the_same_as_an_answer(client, engine):
    body = {"prompt": ["p", "q"], "max_tokens": 30, "n": 2, "stop": "mn", "echo": True,
            "logprobs": 1}  # fmt: skip
    whole, _ = asked(client, engine, **body)
    chunks = streamed(client, **body, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert len({c["id"] for c in chunks}) == 1
    for choice in whole["choices"]:
        mine = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        assert [c["finish_reason"] for c in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1]["finish_reason"] == choice["finish_reason"] == "stop"
        for field, values in choice["logprobs"].items():
            assert [v for c in mine for v in c["logprobs"][field]] == values
    assert whole["choices"][0]["text"] == "pabcdefghijkl"


def test_chat(client, engine):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}],
        },
    ]
    path = "/v1/chat/completions"
    answer, [request] = asked(
        client, engine, path, messages=messages, max_completion_tokens=3, logprobs=True,
        top_logprobs=2, stop="zzz",
    )  # fmt: skip
    assert bytes(request.prompt) == b"System: Be brief.\n\nUser: Hi!\n\nAssistant:"
    assert request.params.stop == ("zzz", "\nUser:", "\nSystem:")
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "abc", "refusal": None}
    first = choice["logprobs"]["content"][0]
    assert (first["token"], first["bytes"], first["logprob"]) == ("a", [97], -0.5)
    assert [t["token"] for t in first["top_logprobs"]] == ["a", "?"]
    assert answer["object"] == "chat.completion"
    chunks = streamed(client, path, messages=messages, max_tokens=3, n=2)
    for index, text in enumerate(("abc", "bcd")):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant" and mine[-1]["finish_reason"] == "length"
        assert "".join(c["delta"].get("content", "") for c in mine) == text
    # Without max_tokens a chat goes on as long as there is room.
    _, [request] = asked(client, engine, path, messages=messages, stop="e")
    assert request.params.max_new_tokens == 4096 - len(request.prompt)


def test_models_languages_health_and_figures(client):
    models = client.get("/v1/models").json()["data"]
    assert [m["id"] for m in models] == ["fake", "other"]
    assert models[0]["geex"]["context"] == 4096 and models[0]["geex"]["infill"] is None
    assert client.get("/v1/models/other").json()["id"] == "other"
    known = client.get("/v1/languages").json()["data"]
    assert [x["name"] for x in known] == [x.name for x in languages.LANGUAGES]
    for path in ("/health", "/v1/health"):
        assert client.get(path).json() == {"status": "ok", "models": ["fake", "other"]}
    client.post("/v1/completions", json={"prompt": "hi", "max_tokens": 7, "model": "other"})
    text = client.get("/metrics").text
    assert 'geex_generated_tokens_total{model="other"} 7.0' in text
    assert 'geex_prompt_tokens_total{model="other"} 2.0' in text
    assert re.search(r'geex_requests_total{route="/v1/completions",status="200"} \d+', text)
    assert 'geex_time_to_first_token_seconds_count{model="other"} 1.0' in text
    assert 'geex_engine_slots_busy{model="fake"} 0.0' in text
    assert "geex_clients_gone_total 0.0" in text and "geex_requests_running 1.0" in text


def test_tokens_for_clients_that_count_them(client):
    answer = client.post("/tokenize", json={"prompt": "hé", "return_token_strs": True}).json()
    assert answer["tokens"] == list("hé".encode()) and answer["count"] == 3
    assert answer["max_model_len"] == 4096 and answer["token_strs"][0] == "h"
    info = client.get("/tokenizer_info", params={"model": "other"}).json()
    assert info["vocab_size"] == 257 and info["eos_token_id"] == 256
    ended = client.post("/tokenize", json={"prompt": info["eos_token"]}).json()
    assert ended["tokens"] == [256]
    assert client.post("/detokenize", json={"tokens": [104, 256, 105]}).json() == {"prompt": "hi"}
    for path, body in [("/tokenize", {}), ("/tokenize", {"prompt": 5}),
                       ("/detokenize", {"tokens": [-1]}), ("/detokenize", {"tokens": [999]}),
                       ("/detokenize", {"tokens": ["a"]})]:  # fmt: skip
        assert client.post(path, json=body).status_code == 400


def test_translation_asks_as_the_paper_does(client, engine):
    source = "def add(a, b):\n    return a + b\n"
    answer, [request] = asked(
        client, engine, "/v1/translate", source=source, to="cpp", max_tokens=4,
        declaration="int add(int a, int b) {\n", **{"from": "python"},
    )  # fmt: skip
    problem = {"task_id": "Python/1", "declaration": "def add(a, b):", "prompt": "",
               "canonical_solution": "    return a + b\n"}  # fmt: skip
    target = problem | {"task_id": "CPP/1", "declaration": "int add(int a, int b) {\n"}
    papers = prompts.translation(prompts.get("translation"), ("python", problem), ("cpp", target))
    assert bytes(request.prompt).decode() == papers
    assert request.params.end_rule == "cpp" and request.params.temperature == 0
    assert answer["code"] == "abcd" and (answer["from"], answer["to"]) == ("Python", "C++")
    assert "test it" in answer["note"] and answer["usage"]["completion_tokens"] == 4
    _, [request] = asked(client, engine, "/v1/translate", source=source, to="sql",
                         **{"from": "python"})  # fmt: skip
    assert request.params.end_rule is None  # nothing says where such a program ends
    chunks = streamed(client, "/v1/translate", source="x", to="go", max_tokens=9,
                      **{"from": "python"})  # fmt: skip
    assert "".join(c["code"] for c in chunks) == "abcdefghi"
    assert chunks[-1]["finish_reason"] == "length" and "usage" in chunks[-1]
    with_braces = languages.get("C++")
    assert translation_prompt("a\n\n", with_braces, with_braces).endswith("a\nC++:\n")


def test_an_explanation_is_the_comment_that_follows_the_code(client, engine):
    answer, [request] = asked(
        client, engine, "/v1/explain", source="x = 1\n", language="python", max_tokens=4
    )
    assert bytes(request.prompt).decode().endswith("x = 1\n\n# Explanation of the code above:\n#")
    assert answer["explanation"] == "abcd" and "not trained to explain" in answer["note"]
    assert explanation_prompt("<p>", languages.get("html")).endswith(
        "<!-- Explanation of the code above:"
    )
    chunks = streamed(client, "/v1/explain", source="x", language="go", max_tokens=3)
    assert "".join(c["explanation"] for c in chunks) == "abc"


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for path, kind in (("/page.js", "javascript"), ("/page.css", "css")):
        part = client.get(path)
        assert kind in part.headers["content-type"] and part.headers["x-content-type-options"]
        assert path[1:] in page.text
    for file in STATIC.iterdir():
        text = file.read_text()
        assert not re.search(r"(https?:)?//[a-z]|@import|innerHTML|eval\(|style=|onclick", text)
