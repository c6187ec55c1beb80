"""`geex serve` as a process with a real model: start, answers, SIGTERM; and what it refuses."""

import contextlib
import functools
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
import jax
import numpy as np
import pytest

from geex_jax import checkpoints, quantize
from geex_jax.checkpoints import Form
from geex_jax.cli import Parser, main
from geex_jax.cli import serve as verb
from geex_jax.errors import GeexError
from geex_jax.inference import generate, prepare
from geex_jax.serving.loading import Wanted, describe, load
from tests import xla
from tests.serving.servers import wait_for
from tests.serving.tiny import CONFIG, write_model

MIXED = "(value|output|down)=int8,(query|key|up)=int4-g32,.*=float"
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


def test_rows_of_clients_that_leave_are_free_again(server):
    _, client = server
    body = {"prompt": ["def item", "return"], "max_tokens": 100, "n": 3, "stream": True,
            "ignore_eos": True}  # fmt: skip

    def rows(kind):
        found = re.search(
            rf'geex_engine_{kind}{{model="small"}} (\S+)', client.get("/metrics").text
        )
        return float(found[1]) if found else 0.0

    before = rows("finished_length")
    with contextlib.ExitStack() as streams:  # 24 samples for 4 rows
        answers = [
            streams.enter_context(client.stream("POST", "/v1/completions", json=body))
            for _ in range(4)
        ]
        assert next(answers[0].iter_text())
    wait_for(lambda: (rows("slots_busy"), rows("queue")) == (0, 0))
    ended = rows("finished_cancelled"), rows("finished_length") - before
    assert sum(ended) == 24 and ended[0] >= 6
    assert rows("stopped") == 0


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


def test_float_and_quantized_side_by_side(folder, monkeypatch):
    """Laid out for a CPU too: what both share outlives the float tree that is given up."""
    laid_out = functools.partial(prepare, least=0)
    monkeypatch.setattr("geex_jax.inference.engine.prepare", laid_out)
    monkeypatch.setattr("geex_jax.serving.loading.warm", lambda *_: None)
    changes = {"activations": "int8", "kv_cache": "int8"}
    models = load(Wanted([("m", str(folder))], Form(changes=changes), quantize.parse("int4")))
    about = "computed in float32, int8 key-value cache"
    assert [(m.name, m.form) for m in models] == [
        ("m", f"custom: float32 weights, {about}"),
        ("m-int4", f"custom: int4 weights, {about}, int8 activations"),
    ]
    plain = checkpoints.load_model(folder, **changes)
    for served, params in zip(models, (plain.params, quantize(plain.params, 4)), strict=True):
        served.engine.stop(drain=False)
        assert served.engine.model == plain.model and plain.config.kv_cache == "int8"
        expected = laid_out(plain.model, params)[1]
        found = served.engine.programs.weights[0]
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_policy_quantizes_while_loading(folder, tmp_path):
    whole = checkpoints.load_model(folder)
    for policy, rounding, form in (
        (MIXED, "clean", "int4-g32 and int8 weights"),
        ("int8+embedding", "official", "int8 weights, int8 token table"),
    ):
        found = Form(quantize.parse(policy), rounding).open(folder)
        expected = quantize(whole.params, policy, rounding)
        jax.tree.map(np.testing.assert_array_equal, found.params, expected)
        assert describe(found.params, CONFIG) == f"custom: {form}, computed in float32"
    checkpoints.save_model(tmp_path / "small", whole.config, expected, whole.tokenizer)
    stored = Form(changes={"activations": "int8"})
    stored.check(tmp_path / "small")  # what is stored in integers needs no policy
    jax.tree.map(np.testing.assert_array_equal, stored.open(tmp_path / "small").params, expected)
    with pytest.raises(GeexError, match="quantized already"):
        Form(quantize.parse(8)).check(tmp_path / "small")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "nowhere"], "no checkpoint folder"),
        (["--checkpoint", "{m}", "--checkpoint", "{m}"], "two models are named 'tiny'"),
        (["--checkpoint", "{m}", "--bits", "8", "--compare-bits", "8"], "give one of them"),
        (["--checkpoint", "{m}", "--bits", "8", "--policy", "int8"], "give one of them"),
        (["--checkpoint", "{m}", "--policy", "int9"], "unknown policy 'int9'"),
        (["--checkpoint", "{m}", "--compare-policy", "mlp/up=int3"], "unknown format 'int3'"),
        (["--checkpoint", "{m}", "--policy", "int4-g64"], "groups of 64 do not divide"),
        (["--checkpoint", "{m}", "--policy", "norms=int8"], "no rule of policy"),
        (["--checkpoint", "{m}", "--rounding", "official"], "--rounding without --policy"),
        (["--checkpoint", "{m}", "--activations", "int8"], "no weight of"),
        (["--checkpoint", "{m}", "--draft", "{m}", "--speculate", "0"], "speculate = 0"),
        (["--checkpoint", "{m}", "--bits", "5"], "choose from"),
        (["--checkpoint", "{m}", "--port", "{p}"], "cannot listen on 127.0.0.1"),
        (["--checkpoint", "{m}", "--port", "99999"], "99999"),
        (["--checkpoint", "{m}", "--host", "no.such.host.invalid"], "no address"),
        (["--checkpoint", "{m}", "--api-key", ""], "an empty --api-key"),
        (["--checkpoint", "{m}", "--max-body-mb", "0"], "--max-body-mb 0"),
        (["--checkpoint", "{m}", "--max-body-mb", "inf"], "--max-body-mb inf"),
        (["--checkpoint", "{m}", "--cors", "https://a.example/"], "not what browsers send"),
        (["--checkpoint", "{m}", "--context", "999"], "engine.context = 999"),
        (["--checkpoint", "{m}", "--slots", "0"], "engine.slots = 0"),
        (["--checkpoint", "{m}", "--mesh", "tensr=2"], "unknown mesh axis"),
        (["--checkpiont", "{m}"], "--checkpoint"),
    ],
)
def test_refusals_are_one_line(folder, flags, message, capsys, monkeypatch):
    # All of it is known before a parameter is read.
    monkeypatch.setattr("geex_jax.checkpoints.store.restore", lambda *_: pytest.fail("loaded"))
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
    monkeypatch.setenv("GEEX_API_KEY", "sesame\n")
    assert settings()["api_keys"] == ("sesame",) and settings()["hosts"] == ()
    assert settings("--api-key", "a", "--api-key", "b")["api_keys"] == ("a", "b")


def test_without_the_extra_the_command_says_what_to_install(folder, capsys, monkeypatch):
    for name in [m for m in sys.modules if m.startswith("geex_jax.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("geex_jax.serving")
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert main(["serve", "--checkpoint", str(folder)]) == 2
    assert "geex-jax[serve]" in capsys.readouterr().err
