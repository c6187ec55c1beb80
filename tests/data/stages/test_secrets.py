"""Secrets: planted ones are found, look-alikes are not, the code still parses."""

import ast
import pathlib
import pickle

import pytest

import geex_jax
from geex_jax.benchmark import secrets_bench
from geex_jax.data.document import Document
from geex_jax.data.stages import Secrets
from geex_jax.errors import GeexError

FILES = sorted((pathlib.Path(geex_jax.__file__).parent / "data").glob("*.py"))


def clean(text, **fields):
    document = Document("s", "x.py", text=text, **fields)
    decision = Secrets()(document)
    assert decision.keep
    return document, decision


@pytest.fixture(scope="module")
def measured():
    return secrets_bench.measure([file.read_text() for file in FILES], seed=5)


def test_planted_secrets_are_found(measured):
    assert measured["recall"] >= 0.95
    for kind, (found, planted) in measured["found"].items():
        assert planted == len(FILES) and found >= 0.75 * planted, kind


def test_look_alikes_are_left_alone(measured):
    assert measured["precision"] >= 0.99
    assert measured["elsewhere"] == 0, "planting changed what is found in the code itself"


def test_the_code_parses_as_before_and_a_second_pass_finds_nothing():
    for number, file in enumerate(FILES):
        text = file.read_text() + "\n"
        for kind, draw in secrets_bench.SECRETS.items():
            r = secrets_bench.random.Random(number)
            line = secrets_bench.statement(kind, draw(r), r).replace("\n", "\\n")
            text += f"VALUE = {line!r}\n"
        document, decision = clean(text)
        assert decision.counts
        before, after = ast.parse(text), ast.parse(document.text)
        assert [type(n) for n in ast.walk(before)] == [type(n) for n in ast.walk(after)]
        again = clean(document.text)
        assert again[0].text == document.text and not again[1].counts


def test_the_same_secret_has_the_same_placeholder():
    text = "a = 'jo@uni-bonn.de'\nb = 'li@uni-bonn.de'\nc = 'jo@uni-bonn.de'  # größer\n"
    document, decision = clean(text, prompt="Write to li@uni-bonn.de")
    assert document.prompt == "Write to email1@example.com"
    assert document.text.count("email2@example.com") == 2
    assert "email1@example.com" in document.text and "größer" in document.text
    assert decision.counts == document.facts["secrets"] == {"email": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = '93.184.216.34'", "x = '192.0.2.1'"),
        ("x = '2a00:1450:4001:81b::200e'", "x = '2001:db8::1'"),
        ("k = 'AKIA" + "QWERTYUIOPASDFGH'", "k = 'AWS_KEY_1'"),
        ("TOKEN=q8Zr2LmX4vT9cYb7NwKe\n", "TOKEN=SECRET_1\n"),
        ("version = '93.184.216.34'", "version = '93.184.216.34'"),
        ("x = '192.168.1.20'", "x = '192.168.1.20'"),
        ("a = 1", "a = 1"),
        ("", ""),
    ],
)
def test_single_lines(text, expected):
    document, _ = clean(text)
    assert document.text == (text if expected is None else expected)


def test_private_keys_lose_their_lines_and_keep_their_frame():
    lines = '"-----BEGIN PRIVATE KEY-----\\n" +\n"MIIEvQIBADANBgkqhkiG9w0BAQEF\\n" +\n'
    document, decision = clean(f"x = {lines}" + '"-----END PRIVATE KEY-----"')
    assert "MIIEv" not in document.text and "BEGIN PRIVATE KEY" in document.text
    assert document.text.count("\\n") == 2 and decision.counts == {"private_key": 1}


def test_kinds_can_be_chosen():
    text = "m = 'jo@uni-bonn.de'; i = '93.184.216.34'; k = 'AKIA" + "QWERTYUIOPASDFGH'"
    for kind, left in (("keys", "AKIA"), ("emails", "jo@"), ("addresses", "93.")):
        stage = pickle.loads(pickle.dumps(Secrets(kinds=[kind])))
        document = Document("s", "x", text=text)
        assert len(stage(document).counts) == 1 and left not in document.text
    with pytest.raises(GeexError, match="choose of"):
        Secrets(kinds=["phones"])
