"""The command line as a user meets it: help, mistakes, exit statuses."""

import subprocess
import sys

import pytest

from geex_jax.cli import VERBS, main


def test_help_lists_every_verb_with_a_line(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb, (_, summary) in VERBS.items():
        assert any(line.split()[:1] == [verb] and summary in line for line in out.splitlines())


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "example:" in out and f"geex {verb}" in out.split("example:")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "unknown verb trian; did you mean train?"),
        (["--frobnicate"], "unknown flag --frobnicate"),
        (["prepare", "--inputt", "x"], "--input"),
        (["train", "--workdri=x"], "unknown flag --workdri=x; did you mean --workdir?"),
        (["train", "--config=no/such.py"], "no config file no/such.py"),
        (["quickstart", "--minuts", "3"], "did you mean --minutes?"),
        (["bench", "train-stp"], "train-step"),
        (["generate", "--checkpoint", "nowhere", "--prompt", "x"], "no checkpoint folder"),
        (["quantize", "nowhere"], "no checkpoint folder"),
    ],
)
def test_mistakes_are_one_line_without_a_traceback(words, says, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("geex: error: ") and error.count("\n") == 1
    assert says in error


def test_debug_shows_the_traceback(capsys):
    assert main(["train", "--config=no/such.py", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_train_without_a_config_lists_the_experiments(capsys):
    assert main(["train"]) == 0
    out = capsys.readouterr().out
    assert "quickstart.py: Small CodeGeeX-shaped model" in out and "geex_20m.py" in out


def test_python_m_runs_it():
    out = subprocess.run(
        [sys.executable, "-m", "geex_jax", "--version"], capture_output=True, text=True, check=True
    )
    assert out.stdout.startswith("geex ")
