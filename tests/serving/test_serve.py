"""`geex serve` as a process with a real model: start, answers, SIGTERM; and what it refuses."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from geex_jax import checkpoints
from geex_jax.cli import Parser, main
from geex_jax.cli import serve as verb
from geex_jax.errors import GeexError
from geex_jax.inference import generate
from geex_jax.quantize import quantization_of
from geex_jax.serving.loading import Wanted, describe, forms
from tests import xla
from tests.serving.tiny import CONFIG, write_model

REPO = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """(process, client)."""
    quick = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla.flags()}
    cache = {"GEEX_CACHE": str(tmp_path_factory.mktemp("cache"))}
    command = [sys.executable, "-m", "geex_jax", "serve", "--checkpoint", f"small={folder}",
               "--port", "0", "--slots", "4", "--max-waiting", "200",
               "--prefix-cache-mb", "0", "--prefill-chunk", "16"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPO,
        env=os.environ | quick | cache,
    )  # fmt: skip
    errors = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True)
    reader.start()
    line = process.stdout.readline()
    found = re.match(
        r"ready: (http://127\.0\.0\.1:\d+) serves small .custom: float32 weights", line
    )
    assert found, "".join(errors)
    with httpx.Client(base_url=found[1], timeout=120) as client:
        client.errors = errors
        yield process, client
    process.kill()
    process.wait()
    reader.join()
    process.stdout.close()
    process.stderr.close()


def test_the_start_tells_how_far_it_is(server):
    said = "".join(server[1].errors)
    assert "loading small from" in said
    assert re.search(r"compiling small: \d+/\d+ programs \([\d.]+/s", said)


def test_answers_are_what_generate_writes(server, folder):
    _, client = server
    loaded = checkpoints.load_model(folder)
    [expected] = generate(*loaded, "def item_7(a", max_new_tokens=24)
    body = {"prompt": expected.prompt, "max_tokens": 24, "temperature": 0, "model": "small"}
    answer = client.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == expected.text
    assert answer["usage"]["prompt_tokens"] == expected.prompt_tokens
    with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as stream:
        lines = [x for x in stream.iter_lines() if x]
    chunks = [json.loads(x.removeprefix("data: ")) for x in lines[:-1]]
    assert lines[-1] == "data: [DONE]"
    assert "".join(c["choices"][0]["text"] for c in chunks) == expected.text


def test_a_drawn_end_of_text_has_its_log_probability(server, folder):
    # lm-eval takes the entries between its context and the last one, which is the token drawn:
    # it must be there even if it ends the text.
    _, client = server
    eos = checkpoints.load_model(folder).tokenizer.eos_id
    body = {"prompt": "def item_7", "max_tokens": 1, "logprobs": 1, "echo": True}
    plain = client.post("/v1/completions", json=body).json()["choices"][0]
    ended = client.post("/v1/completions", json=body | {"logit_bias": {str(eos): 100}})
    ended = ended.json()["choices"][0]
    assert (plain["finish_detail"], ended["finish_detail"]) == ("length", "eos")
    for field, values in ended["logprobs"].items():
        assert values[:-1] == plain["logprobs"][field][:-1]
    assert ended["logprobs"]["token_logprobs"][0] is None
    assert ended["text"] == "def item_7"


def test_sigterm_finishes_what_runs_and_takes_nothing_new(server):
    process, client = server
    body = {"prompt": ["def item"] * 190, "max_tokens": 100, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as stream:
        parts = stream.iter_text()
        text = next(parts)
        process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            while (health := other.get("/health")).status_code == 200:
                pass
            assert health.json()["status"] == "draining"
            refused = other.post("/v1/completions", json={"prompt": "a"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "draining"
        text += "".join(parts)
    assert text.endswith("data: [DONE]\n\n")
    assert text.count('"finish_reason":"length"') == 190
    assert process.wait(60) == 0
    assert "requests have 60 s to finish" in "".join(client.errors)


def test_float_and_quantized_side_by_side(folder):
    params = checkpoints.load_model(folder).params
    [(name, alone)] = forms("m", params, Wanted([], bits=8))
    assert name == "m" and quantization_of(alone).bits == 8
    [(first, same), (second, small)] = forms("m", params, Wanted([], compare_bits=4))
    assert (first, second) == ("m", "m-int4") and same is params
    assert describe(small, CONFIG) == "custom: int4 weights, computed in float32"
    with pytest.raises(GeexError, match="quantized already"):
        forms("m", small, Wanted([], bits=8))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "nowhere"], "no checkpoint folder"),
        (["--checkpoint", "{m}", "--checkpoint", "{m}"], "two models are named 'tiny'"),
        (["--checkpoint", "{m}", "--bits", "8", "--compare-bits", "8"], "give one of them"),
        (["--checkpoint", "{m}", "--bits", "5"], "choose from"),
        (["--checkpoint", "{m}", "--port", "{p}"], "cannot listen on 127.0.0.1"),
        (["--checkpoint", "{m}", "--port", "99999"], "99999"),
        (["--checkpoint", "{m}", "--host", "no.such.host.invalid"], "no address"),
        (["--checkpoint", "{m}", "--api-key", ""], "an empty --api-key"),
        (["--checkpoint", "{m}", "--max-body-mb", "0"], "--max-body-mb 0"),
        (["--checkpoint", "{m}", "--context", "999"], "engine.context = 999"),
        (["--checkpoint", "{m}", "--slots", "0"], "engine.slots = 0"),
        (["--checkpoint", "{m}", "--mesh", "tensr=2"], "unknown mesh axis"),
        (["--checkpiont", "{m}"], "--checkpoint"),
    ],
)
def test_refusals_are_one_line(folder, flags, message, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", *(f.format(m=folder, p=port) for f in flags)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("geex: error: ") and message in error


def test_who_may_come_in(monkeypatch):
    def settings(*flags):
        parser = Parser()
        verb.add_arguments(parser)
        return verb._settings(parser.parse_args(["--checkpoint", "m", *flags]))

    monkeypatch.delenv("GEEX_API_KEY", raising=False)
    assert settings()["api_keys"] == () and "localhost" in settings()["hosts"]
    assert "my.name" in settings("--allow-host", "My.Name")["hosts"]
    assert settings("--host", "0.0.0.0")["hosts"] == ()  # others come under names unknown here
    assert settings("--deadline", "0")["deadline"] is None
    monkeypatch.setenv("GEEX_API_KEY", "sesame")
    assert settings()["api_keys"] == ("sesame",) and settings()["hosts"] == ()
    assert settings("--api-key", "a", "--api-key", "b")["api_keys"] == ("a", "b")


def test_without_the_extra_the_command_says_what_to_install(folder, capsys, monkeypatch):
    for name in [m for m in sys.modules if m.startswith("geex_jax.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("geex_jax.serving")
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert main(["serve", "--checkpoint", str(folder)]) == 2
    assert "geex-jax[serve]" in capsys.readouterr().err
