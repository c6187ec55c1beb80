"""XLCoST's way to write a program on one line, and programs of this machine to write so.

`python -m tests.data.xlcost_tokens` prints, for many more programs than the tests look at, the
share whose detokenized text parses again, and the share that has the same tokens again.
"""

import functools
import importlib
import io
import os
import pathlib
import random
import re
import sys
import sysconfig
import tokenize

from geex_jax import languages

GRAMMARS = {
    "Python": ("tree_sitter_python", "language"),
    "C++": ("tree_sitter_cpp", "language"),
    "C": ("tree_sitter_c", "language"),
    "Java": ("tree_sitter_java", "language"),
    "JavaScript": ("tree_sitter_javascript", "language"),
    "PHP": ("tree_sitter_php", "language_php"),
    "C#": ("tree_sitter_c_sharp", "language"),
}
# Nodes that are one string, whatever is inside.
STRINGS = {
    *("string_literal", "char_literal", "raw_string_literal", "string", "character_literal"),
    *("template_string", "encapsed_string", "heredoc", "nowdoc", "regex", "system_lib_string"),
    *("interpolated_string_expression", "verbatim_string_literal", "shell_command_expression"),
}
COMMENTS = {"comment", "line_comment", "block_comment", "html_comment"}
RESERVED = re.compile("NEW_LINE|INDENT|DEDENT|STRNEWLINE|TABSYMBOL|SPACETOKEN")
_PIECE = re.compile(r"\"\"\"|'''|\\.|[^\W_]+|\s|.", re.DOTALL)


@functools.cache
def parser(language):
    import tree_sitter

    module, name = GRAMMARS[language]
    grammar = getattr(importlib.import_module(module), name)()
    return tree_sitter.Parser(tree_sitter.Language(grammar))


def parses(text, language):
    return not parser(language).parse(text.encode()).root_node.has_error


def spread(text, language):
    """A string as tokens: words and signs apart, spaces, line ends and tabs as marks."""
    escapes = language != "Python" and _escapes(text, language)
    marks = {" ": "▁", "\n": "STRNEWLINE", "\t": "TABSYMBOL", "▁": "SPACETOKEN"}
    if escapes:
        marks |= {"\\n": "STRNEWLINE", "\\t": "TABSYMBOL"}
    found = []
    for piece in _PIECE.findall(text):
        if piece[0] == "\\" and piece not in marks and piece[1:].isspace():
            found += ["\\", marks[piece[1:]]]
        else:
            found.append(marks.get(piece, piece))
    return " ".join(found)


def _escapes(text, language):
    """Whether \\n in this string may be written STRNEWLINE, as a real line end is not possible."""
    if text.startswith(("`", '"""', "R", "LR", "@", "$@", "/", "<")):
        return False
    return not (language == "PHP" and text.startswith("'"))


def tokens(text, language):
    """The program as one line."""
    if language == "Python":
        return " ".join(_python(text))
    data = text.encode()
    found = []
    _leaves(parser(language).parse(data).root_node, data, language, found)
    return " ".join(found)


def _leaves(node, data, language, found):
    text = data[node.start_byte : node.end_byte].decode()
    if node.type in COMMENTS:
        return
    if node.type in STRINGS and node.child_count + len(text) > 0:
        system = node.type == "system_lib_string"
        found.append(text if system else spread(text, language))
    elif node.child_count == 0:
        if text and not text.strip():
            found.append("NEW_LINE")
        elif text.startswith("#"):
            found.append(re.sub(r"^#\s+", "#", text.rstrip()))
        elif node.type == "preproc_arg":
            ended = re.sub(r"[\s\\]+$", "", text)
            found.append(re.sub(r"\s*\\\n\s*", r" \\ NEW_LINE ", ended))
        elif text:
            found.append(text)
    elif node.type == "pure_virtual_clause":  # hides its 0
        found += ["=", "0"] + [";"] * text.endswith(";")
    else:
        for at, child in enumerate(node.children):
            _leaves(child, data, language, found)
            if at == 1 and language == "C#" and node.type in ("preproc_if", "preproc_elif"):
                found.append("NEW_LINE")
    if node.type in ("preproc_include", "preproc_def", "preproc_function_def", "preproc_call") or (
        language == "C#" and node.type.startswith("preproc_") and node.child_count
        and not node.type.endswith(("if", "elif", "else"))
    ):  # fmt: skip
        found += ["NEW_LINE"] * (found[-1:] != ["NEW_LINE"])


def _python(text):
    found, lines = [], text.splitlines(keepends=True)
    names = {tokenize.NEWLINE: "NEW_LINE", tokenize.INDENT: "INDENT", tokenize.DEDENT: "DEDENT"}
    begun, depth = None, 0
    start_kind = getattr(tokenize, "FSTRING_START", -1)
    end_kind = getattr(tokenize, "FSTRING_END", -1)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == start_kind:
            begun, depth = (token.start if not depth else begun), depth + 1
        elif token.type == end_kind:
            depth -= 1
            if not depth:
                found.append(spread(_cut(lines, begun, token.end), "Python"))
        elif depth or token.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            continue
        elif token.type in names:
            found.append(names[token.type])
        else:
            string = token.type == tokenize.STRING
            found.append(spread(token.string, "Python") if string else token.string)
    return found


def _cut(lines, start, end):
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    inner = lines[start[0] : end[0] - 1]
    return "".join([lines[start[0] - 1][start[1] :], *inner, lines[end[0] - 1][: end[1]]])


PLACES = {
    "Python": [(sysconfig.get_paths()["stdlib"], "*.py")],
    "C++": [("/usr/include/c++", "*"), ("/usr/include", "*.hpp"), ("/usr/src", "*.cpp"),
            (sysconfig.get_paths()["purelib"], "*.cpp"),
            (sysconfig.get_paths()["purelib"], "*.hpp")],
    "C": [("/usr/include", "*.h"), ("/usr/src", "*.c"), ("/usr/share", "*.c"),
          (sysconfig.get_paths()["purelib"], "*.c"), ("/usr/lib/linux-kbuild", "*.c")],
    "Java": [("/usr/share", "*.java"), ("/usr/lib/jvm", "*.java"), ("/usr/src", "*.java")],
    "JavaScript": [("/usr/share/nodejs", "*.js"), ("/usr/lib/node_modules", "*.js"),
                   ("/usr/share/javascript", "*.js")],
    "PHP": [("/usr/share/php", "*.php"), ("/usr/share", "*.php")],
    "C#": [("/usr/share", "*.cs"), ("/usr/lib/mono", "*.cs")],
}  # fmt: skip
CUT = {
    "Python": {"function_definition", "class_definition", "decorated_definition"},
    "C++": {"function_definition", "template_declaration", "class_specifier"},
    "C": {"function_definition"},
    "Java": {"class_declaration", "interface_declaration", "enum_declaration"},
    "JavaScript": {"function_declaration", "class_declaration", "expression_statement"},
    "PHP": {"function_definition", "class_declaration"},
    "C#": {"class_declaration", "method_declaration"},
}


def programs(language, count, folders=()):
    """At most `count` (path, program): functions, classes and whole small files, in an order.

    `folders` are looked through too.
    """
    found, seen = [], set()
    for path in _paths(language, folders):
        if len(found) >= count:
            break
        try:
            data = path.read_bytes()
            data.decode()
        except (OSError, UnicodeDecodeError):
            continue
        if not 0 < len(data) < 200_000:
            continue
        mine = [data] if len(data) < 6000 else []
        root = parser(language).parse(data).root_node
        for node in root.children:
            if node.type in CUT[language] and node.end_byte - node.start_byte < 8000:
                mine.append(data[node.start_byte : node.end_byte])
        for one in mine[:6]:
            text = one.decode().replace("\r\n", "\n")
            if language == "PHP" and "<?php" not in text:
                text = "<?php\n" + text
            if text in seen or RESERVED.search(text) or "\f" in text:
                continue
            seen.add(text)
            if len(text) > 40 and parses(text, language) and "<?" not in text[5:]:
                found.append((path, text + "\n"))
    return found[:count]


def _paths(language, folders):
    paths = []
    more = [(folder, "*" + languages.get(language).extensions[0]) for folder in folders]
    for folder, pattern in [*more, *PLACES[language]]:
        if pathlib.Path(folder).is_dir():
            paths += sorted(p for p in pathlib.Path(folder).rglob(pattern) if p.is_file())[:20_000]
    random.Random(7).shuffle(paths)
    return paths


def main(count, folders):
    from geex_jax.data.detokenize import detokenize

    print(f"{'language':<12}{'programs':>9}{'parse':>10}{'same tokens':>13}")
    for language in os.environ.get("ONLY", ",".join(GRAMMARS)).split(","):
        every = programs(language, count, folders)
        good = same = 0
        for path, text in every:
            try:
                line = tokens(text, language)
            except (tokenize.TokenError, IndentationError, SyntaxError):
                continue
            back = detokenize(line, language)
            ok = parses(back, language)
            equal = ok and tokens(back, language) == line
            good, same = good + ok, same + equal
            if not equal and "-v" in sys.argv:
                show(path, line, back, language, ok)
        share = max(len(every), 1)
        print(
            f"{language:<12}{len(every):>9,}{good / share:>10.2%}{same / share:>13.2%}", flush=True
        )


def show(path, line, back, language, ok):
    print(f"--- {language} {'tokens differ' if ok else 'NO PARSE'} {path}")
    try:
        other = tokens(back, language)
    except Exception as error:
        print("   ", error)
        return
    if not ok:
        row = _first_error(parser(language).parse(back.encode()).root_node).start_point[0]
        print(
            "\n".join(
                f"    line {n + 1}: {x[:150]}"
                for n, x in enumerate(back.split("\n"))
                if abs(n - row) < 2
            )
        )
    one, two = line.split(" "), other.split(" ")
    at = next(
        (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
        min(len(one), len(two)),
    )
    print("    was:", " ".join(one[max(0, at - 12) : at + 12]))
    print("    now:", " ".join(two[max(0, at - 12) : at + 12]))


def _first_error(node):
    while True:
        for child in node.children:
            if child.has_error or child.is_error or child.is_missing:
                node = child
                break
        else:
            return node


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "-v"]
    main(int(given[0]) if given else 3000, given[1:])
