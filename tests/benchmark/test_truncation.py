"""Stop rules and clean-ups: against the reference's words, and on real solutions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geex_jax.benchmark.humaneval_x import tasks, truncation

SNIPPETS = st.lists(
    st.sampled_from(["\n", " ", "\t", "x", "{", "}", "\ndef f", "\nprint(1)", "\n#", "\n//", "\x0c",
                     "\nfunc main(", "\nfn main()", "public static void main", "\nassert 1"]),
    max_size=12,
).map("".join)  # fmt: skip


def reference_finished(language: str, code: str) -> bool:
    """The rule in BENCHMARK's words."""
    if language == "python":
        unindented = any(x.strip() and x[0] not in " \t" for x in code.split("\n"))
        return unindented or any(w in code for w in ("\ndef", "\nclass", "\nif", "\n#", "\nprint"))
    if language == "rust" and "\nfn main()" in code:
        return True
    return code.count("{") + 1 == code.count("}")


@pytest.mark.parametrize("language", truncation.FINISHED)
@given(code=SNIPPETS)
def test_finished_is_the_reference_and_end_is_the_first_moment(language, code):
    assert truncation.FINISHED[language](code) == reference_finished(language, code)
    moments = [n for n in range(len(code) + 1) if reference_finished(language, code[:n])]
    assert truncation.end(language, code) == (moments[0] if moments else None)


@pytest.mark.parametrize(
    ("language", "code", "cleaned"),
    [
        ("python", "  a\ndef f\n  b\ndef g", "  a\ndef f\n  b"),  # the last one only
        ("python", "  a\nassert 1\nprint(2)\n  b", "  a"),  # print goes first, assert last
        ("python", "  return 1\n", "  return 1\n"),
        ("java", "  return 1;\n }", "  return 1;\n }\n}"),
        ("java", "  return 1;\n }\n}\n// more", "  return 1;\n }\n}"),
        ("java", "  x;\n }\n public static void main(String[] a) {\n f(); }}", "  x;\n }\n }"),
        ("java", "no brace", "no brace"),
        ("go", "  return 1\n}\n// a\n// b }", "  return 1\n}"),
        ("go", "  x\n}\nfunc main() {\n y\n}", "  x\n}"),
        ("cpp", "  return 1;\n}\n\nint g", "  return 1;\n}"),
        ("javascript", "  return 1\n}\n\nf()", "  return 1\n}"),
        ("rust", "  1\n}\nfn main()", "  1\n}"),
        ("rust", "  1", "  1"),
    ],
)
def test_clean(language, code, cleaned):
    assert truncation.CLEAN[language](code) == cleaned


@pytest.mark.parametrize(
    ("language", "code", "short"),
    [
        ("python", "    return 1\n\ndef g():\n    pass", ("    return 1\n\n", True)),
        ("python", "return 1", ("", True)),
        ("python", "    return 1", ("    return 1", False)),
        ("cpp", " if (x) { y; }\n return 1;\n}\nint g", (" if (x) { y; }\n return 1;\n}", True)),
        ("java", "  return 1;\n }\n\n void g() {}", ("  return 1;\n }\n}", True)),
        ("go", " if x {", (" if x {", False)),
        ("cobol", "x }", ("x }", False)),
    ],
)  # fmt: skip
def test_shorten(language, code, short):
    assert truncation.shorten(language, code) == short


@pytest.mark.parametrize("language", tasks.NAMES)
def test_solutions_survive_and_what_follows_them_goes(shared, language):
    junk = {"python": "\nclass More:\n    pass\n"}.get(language, "\n{ more }\n")
    count = 0
    for problem in tasks.load(language, shared / "humaneval-x"):
        code = problem["canonical_solution"]
        if language != "python" and truncation.end(language, code.rstrip()) not in (
            len(code.rstrip()),
            len(code.rstrip().removesuffix("}").rstrip()),  # Java: method, then class
        ):
            continue  # helpers follow the function
        short, finished = truncation.shorten(language, code + junk)
        assert finished
        assert re.sub(r"\s", "", short) == re.sub(r"\s", "", code)
        count += 1
    assert count >= 155
