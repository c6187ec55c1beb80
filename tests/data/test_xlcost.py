"""XLCoST: token lines back to programs that parse, and pairs of files to translation rows."""

import json

import pytest

from geex_jax.data.detokenize import detokenize
from geex_jax.data.document import Document, Passed
from geex_jax.data.sources import open_source
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES
from tests.data import xlcost_tokens
from tests.data.xlcost_programs import WRITTEN

LEAST = 0.99
COUNT = 150


def programs(language):
    pytest.importorskip(xlcost_tokens.GRAMMARS[language][0], reason="the grammar is an extra")
    found = [text for _, text in xlcost_tokens.programs(language, COUNT)]
    written = list(WRITTEN.get(language, ()))
    assert all(xlcost_tokens.parses(text, language) for text in written)
    return found + written


@pytest.mark.parametrize("language", xlcost_tokens.GRAMMARS)
def test_detokenized_programs_parse_and_have_the_same_tokens(language, capsys):
    every = programs(language)
    assert every
    parsed = same = 0
    for text in every:
        line = xlcost_tokens.tokens(text, language)
        assert "\n" not in line
        back = detokenize(line, language)
        parsed += xlcost_tokens.parses(back, language)
        same += xlcost_tokens.tokens(back, language) == line
    with capsys.disabled():
        print(f" {language}: {parsed / len(every):.2%} of {len(every)} parse,"
              f" {same / len(every):.2%} have the same tokens", end="")  # fmt: skip
    assert parsed >= LEAST * len(every)
    assert same >= LEAST * len(every)


def test_the_measure_notices_what_is_broken():
    pytest.importorskip("tree_sitter_c")
    assert not xlcost_tokens.parses("int f ( { return ;", "C")
    line = xlcost_tokens.tokens("int f(int a) { return a - -a; }", "C")
    assert line == "int f ( int a ) { return a - - a ; }"
    assert xlcost_tokens.tokens("int f(int a) { return a --a; }", "C") != line


def test_python_lines_strings_and_spaces():
    line = (
        "def f ( a , b = 1 , * c , d : int = 2 ) : NEW_LINE INDENT x = a [ 0 : - 1 ] NEW_LINE"
        " if x : NEW_LINE INDENT print ( ' it \\ ' s ▁ { x } ' , - x ) NEW_LINE DEDENT"
        ' return """ a STRNEWLINE ▁ b """ NEW_LINE DEDENT'
        " if __name__ == ' _ _ main _ _ ' : NEW_LINE INDENT f ( 1 , b = 2 ) NEW_LINE DEDENT"
    )
    assert detokenize(line, "Python") == (
        "def f(a, b=1, *c, d: int = 2):\n    x = a[0:-1]\n    if x:\n"
        "        print('it\\'s {x}', -x)\n"
        '    return """a\n b"""\n'
        "if __name__ == '__main__':\n    f(1, b=2)\n"
    )


def test_preprocessor_lines_and_line_ends_in_strings():
    line = (
        "#include <bits/stdc++.h> NEW_LINE using namespace std ; #define SQ ( x )  ((x)*(x))"
        " NEW_LINE"
        " #define N  (4) NEW_LINE int main ( ) { vector < vector < int > > v ; for ( int i = 0 ;"
        " i < N ; i ++ ) { cout << \" a ▁ b STRNEWLINE \" << ' \\0 ' ; } return - 1 ; }"
    )
    assert detokenize(line, "C++") == (
        "#include <bits/stdc++.h>\nusing namespace std;\n#define SQ(x)  ((x)*(x))\n"
        "#define N  (4)\nint main() {\n    vector<vector<int>> v;\n"
        "    for (int i = 0; i < N; i++) {\n"
        "        cout << \"a b\\n\" << '\\0';\n    }\n    return -1;\n}\n"
    )


def test_javascript_without_semicolons():
    line = "let a = 1 let b = a ++ if ( a ) { b += 2 } f ( x => { g ( x ) return x } ) ! b && h ( )"
    assert detokenize(line, "JavaScript") == (
        "let a = 1\nlet b = a++\nif (a) {\n    b += 2\n}\n"
        "f(x => {\n    g(x)\n    return x\n})\n!b && h()\n"
    )


def test_php_signs_that_are_written_apart():
    line = "< ? php function f ( $ a ) { return \" x { $ a [ ' k ' ] } STRNEWLINE \" ; } ? >"
    assert detokenize(line, "PHP") == (
        "<?php\nfunction f($a) {\n    return \"x{$a['k']}\\n\";\n}\n?>\n"
    )


@pytest.mark.parametrize("language", xlcost_tokens.GRAMMARS)
@pytest.mark.parametrize(
    "line", ["", "  ", "' never closed", '" " " "', "/ / / /", "<<< <<< EOT", "} ) ] {", "#define",
             "#include", "# ", "$", "NEW_LINE DEDENT DEDENT x INDENT", '$ @ " {', "\x00 \udcff"],
)  # fmt: skip
def test_anything_is_detokenized(language, line):
    assert isinstance(detokenize(line, language), str)


@pytest.mark.parametrize(
    "opening", ["'", '"', "/", "< < <", "( /", '$ " {', "{", "`", "#define x ("]
)
@pytest.mark.parametrize("language", ["PHP", "JavaScript", "C#", "C++"])
def test_long_lines_of_what_never_closes_end(language, opening):
    # Cubic and worse work would never end here.
    assert detokenize(f"{opening} a " * 5000, language)


def test_unknown_language():
    with pytest.raises(GeexError, match="no detokenizer for 'Pyton'; did you mean Python"):
        detokenize("x", "Pyton")


@pytest.fixture
def folder(tmp_path):
    pair = tmp_path / "pair_data_tok_full" / "C++-Python"
    pair.mkdir(parents=True)
    cpp = [b"int f ( ) { return 1 ; }", b"int g ( ) { return 2 ; }", b"", b"\xff\xfe x", b"int z ;"]
    py = [b"def f ( ) : NEW_LINE INDENT return 1 NEW_LINE DEDENT", b"g = 2 NEW_LINE", b"x NEW_LINE",
          b"y NEW_LINE"]  # fmt: skip
    (pair / "train-C++-Python-tok.cpp").write_bytes(b"\n".join(cpp) + b"\n")
    (pair / "train-C++-Python-tok.py").write_bytes(b"\n".join(py) + b"\n")
    (pair / "train-Python-map.jsonl").write_text("10-Python-1\n11-Python-1\n")
    other = tmp_path / "pair_data_tok_full" / "C-PHP"
    other.mkdir()
    (other / "train-C-PHP-tok.c").write_bytes(b"int a ;\n")
    return tmp_path


def read(source):
    parts = list(source.parts(0))
    passed = [x for x in parts if isinstance(x, Passed)]
    for part in parts:
        if not isinstance(part, Passed):
            for item in source.read(part):
                assert isinstance(item, Document | Passed)
                yield item
    yield from passed


def test_rows_of_both_directions(folder):
    source = open_source(str(folder), kind="xlcost")
    items = list(read(source))
    documents = [x for x in items if isinstance(x, Document)]
    assert [LANGUAGES[x.language].name for x in documents] == ["Python", "Python", "C++", "C++"]
    first = documents[0]
    assert first.text == "def f():\n    return 1\n"
    assert first.prompt == ("code translation\nC++:\nint f() {\n    return 1;\n}\nPython:\n")
    assert first.path.endswith("C++-Python/train/C++-to-Python/0-10-Python-1")
    assert documents[2].text == "int f() {\n    return 1;\n}\n"
    reasons = [x.reason for x in items if isinstance(x, Passed)]
    assert sorted(reasons) == sorted(["empty", "broken_line", "no_partner"] * 2 + ["no_partner"])
    assert len({x.path for x in documents}) == 4


def test_one_direction_and_settings(folder):
    source = open_source(str(folder), kind="xlcost", directions=("Python-C++",))
    documents = [x for x in read(source) if isinstance(x, Document)]
    assert {LANGUAGES[x.language].name for x in documents} == {"C++"}
    json.dumps(source.settings())
    assert str(folder) not in json.dumps(source.settings())


def test_what_is_refused(folder):
    with pytest.raises(GeexError, match="holds no pair of XLCoST files of the split val"):
        list(open_source(str(folder), kind="xlcost", split="val").parts(0))
    with pytest.raises(GeexError, match="no split 'trian'; did you mean train"):
        open_source(str(folder), kind="xlcost", split="trian")
    with pytest.raises(GeexError, match="unknown direction 'C-Pyton'; did you mean C-Python"):
        open_source(str(folder), kind="xlcost", directions=("C-Pyton",))


def test_long_lines_are_passed(folder):
    source = open_source(str(folder), kind="xlcost", limits={"max_bytes": 30})
    reasons = [x.reason for x in read(source) if isinstance(x, Passed)]
    assert "too_large" in reasons
