"""`geex data show`: a row as it is, and what carries loss."""

import numpy as np
import pytest

from geex_jax import cli, tokenizers
from geex_jax.data import load_manifest, make_batch, read_rows
from geex_jax.data.pipeline import prepare_recipe
from geex_jax.data.recipe import Recipe, SourceSpec
from geex_jax.data.show import BOUNDARY, PROMPT, TAG, render, runs, show
from geex_jax.errors import GeexError
from tests.data.helpers import ByteTokenizer

TOKENIZER = ByteTokenizer()


@pytest.fixture
def own_tokenizer(monkeypatch):
    monkeypatch.setattr(tokenizers, "load", lambda spec: TOKENIZER)


@pytest.fixture(scope="module")
def translations(tmp_path_factory):
    top = tmp_path_factory.mktemp("xlcost")
    pair = top / "C++-Python"
    pair.mkdir()
    cpp, py = [], []
    for n in range(6):
        cpp.append(f'int f{n} ( ) {{ cout << " {n} STRNEWLINE " ; return {n} ; }}')
        py.append(f"def f{n} ( ) : NEW_LINE INDENT return {n} NEW_LINE DEDENT")
    (pair / "train-C++-Python-tok.cpp").write_text("\n".join(cpp) + "\n")
    (pair / "train-C++-Python-tok.py").write_text("\n".join(py) + "\n")
    spec = SourceSpec(str(top), kind="xlcost", options={"directions": ["C++-Python"]})
    recipe = Recipe(
        (spec,), seq_len=256, validation_fraction=0.0, stages={"filters": None, "licences": None}
    )
    output = tmp_path_factory.mktemp("out") / "data"
    prepare_recipe(recipe, output, TOKENIZER, workers=1)
    return output


def test_a_row_is_the_row(prepared):
    folder, manifest = prepared
    number = 0
    for language in manifest.languages:
        if manifest.amount("train", language.name).rows == 0:
            continue
        for row in list(read_rows(folder, "train", language.name))[:3]:
            mine = show(folder, number, "train", tokenizer=TOKENIZER)
            assert mine.language == language.name
            ids = [token.id for segment in mine.segments for token in segment.tokens]
            np.testing.assert_array_equal(ids, row.tokens[: row.used])
            assert [segment.start for segment in mine.segments] == list(row.starts)
            learned = [token.loss for segment in mine.segments for token in segment.tokens]
            np.testing.assert_array_equal(
                learned[1:], make_batch([row])["loss_mask"][0][: row.used - 1]
            )
            number += 1
        break
    assert number


def test_rows_are_numbered_over_languages_and_within_one(prepared):
    folder, manifest = prepared
    total = manifest.total("train").rows
    assert show(folder, -1, tokenizer=TOKENIZER).index == total - 1
    first = next(x.name for x in manifest.languages if manifest.amount("train", x.name).rows)
    beyond = manifest.amount("train", first).rows
    assert show(folder, beyond - 1, tokenizer=TOKENIZER).language == first
    second = show(folder, beyond, tokenizer=TOKENIZER)
    assert second.language != first
    within = show(folder, 0, language=second.language, tokenizer=TOKENIZER)
    assert within.segments == second.segments


def test_tags_and_text(prepared):
    folder, _ = prepared
    row = show(folder, 0, language="python", tokenizer=TOKENIZER)
    kind, text = next(runs(row.segments[0], TOKENIZER))
    assert (kind, text) == (TAG, "# language: Python\n")
    text = render(row, TOKENIZER)
    assert "‹# language: Python\n›" in text
    assert "\x1b" not in text
    assert BOUNDARY in render(row, TOKENIZER, boundaries=True)
    assert "\x1b[35m# language: Python" in render(row, TOKENIZER, color=True)


def test_prompts_carry_no_loss(translations):
    row = show(translations, 0, tokenizer=TOKENIZER)
    assert row.language == "Python"
    for segment in row.segments:
        parts = dict(runs(segment, TOKENIZER))
        assert parts[PROMPT].startswith("code translation\nC++:\nint f")
        assert parts[PROMPT].endswith("\n}\nPython:\n")
        assert parts["text"].startswith("def f") and TAG not in parts
        for token in segment.tokens:
            assert token.loss == (token.kind != PROMPT)
    text = render(row, TOKENIZER)
    assert "«code translation\n" in text
    assert f"prompt {row.segments[0].prompt}" in text


def test_what_a_terminal_would_obey_is_spelled_out(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "a.py").write_text("# \x1b[31mred\n" + "value = 1  # a comment of words\n" * 60)
    recipe = Recipe((SourceSpec(str(folder)),), seq_len=256, validation_fraction=0.0)
    prepare_recipe(recipe, tmp_path / "data", TOKENIZER, workers=1)
    assert load_manifest(tmp_path / "data").total("train").rows
    for boundaries in (False, True):
        row = show(tmp_path / "data", 0, tokenizer=TOKENIZER)
        text = render(row, TOKENIZER, boundaries=boundaries)
        assert "\x1b" not in text and "[U+001B]" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "100000"], "no row 100000 in .* split has .* rows; use --index 0 to"),
        (["--language", "Pyton"], "unknown language 'Pyton'; did you mean Python"),
        (["--language", "Java"], "has no rows of Java in its train split; choose one of"),
        (["--split", "tests"], "unknown split 'tests'; use train or validation"),
    ],
)
def test_mistakes_are_one_line(prepared, own_tokenizer, capsys, arguments, message):
    assert cli.main(["data", "show", str(prepared[0]), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)


def test_command(prepared, own_tokenizer, capsys):
    assert cli.main(["data", "show", str(prepared[0]), "--index", "1", "--tokens"]) == 0
    assert "segment 1: tokens 0 to" in capsys.readouterr().out
    assert cli.main(["data", "show", str(prepared[0] / "nothing")]) == 2
    assert "no prepared data at" in capsys.readouterr().err


def test_damaged_shards(prepared, tmp_path):
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(prepared[0], folder)
    for path in folder.glob("train/*.arrayrecord"):
        path.write_bytes(b"no shard" * 1000)
    with pytest.raises(GeexError, match="geex prepare --overwrite"):
        show(folder, 0, tokenizer=TOKENIZER)
