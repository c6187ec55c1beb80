"""BLEU and CodeBLEU."""

import importlib
import math
import re

import pytest

from geex_jax.benchmark import metrics
from geex_jax.benchmark.metrics import bleu, codebleu, grammars, tree
from geex_jax.errors import GeexError

needs_sitter = pytest.mark.skipif(not metrics.available(), reason="tree-sitter is not installed")

SAMPLES = {
    "python": "def f(alpha, beta=1):\n    total = alpha + beta\n    for it in alpha:\n"
    "        total += it\n    return [q for q in total if q]\n",
    "cpp": "int f(vector<int> &alpha, int beta) { int total = beta, w; for (auto it : alpha) "
    "total += it; for (int k = 0; k < beta; k++) alpha[k] = total; return total; }",
    "java": "class A { int f(List<Integer> alpha, int beta) { int total = beta; "
    "for (int it : alpha) total += it; alpha.forEach(z -> g(z)); total++; return total; } }",
    "javascript": "const f = (alpha, beta = 1) => { let total = beta; for (const it of alpha) "
    "total += it; const [s, t] = alpha; return {total, m: s + t}; };",
    "go": "package m\nfunc f(alpha []int, beta int) int { total := beta; for _, it := range alpha "
    "{ total += it; beta++ }; return total }",
    "rust": "fn f(alpha: &Vec<i32>, beta: i32) -> i32 { let mut total = beta; for it in alpha.iter"
    "() { total += it; } if let Some(w) = g(beta) { total = w; } total }",
}
UNRELATED = {
    "python": "import os\nclass Empty:\n    pass\n",
    "cpp": "struct Empty { };",
    "java": "interface Empty { }",
    "javascript": "class Empty { }",
    "go": "package other\ntype Empty struct{}",
    "rust": "struct Empty;",
}
RENAMED = {"alpha": "xs", "beta": "n", "total": "acc", "it": "each", "w": "u", "q": "v", "k": "j"}


def renamed(code):
    return re.sub(r"\b(alpha|beta|total|it|w|q|k)\b", lambda m: RENAMED[m[0]], code)


def edges(language, code):
    return codebleu.data_flow(tree.parse(language, code), grammars.grammar(language))


def test_bleu_by_hand():
    mine, theirs = list("abcde"), list("abcdf")
    want = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu.bleu(mine, theirs) == pytest.approx(want)
    assert bleu.bleu(list("abcd"), list("abcdef")) == pytest.approx(math.exp(1 - 6 / 4))
    # Repeats are clipped, and counts of 0 smoothed to 0.1.
    want = (1 / 4 * 0.1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25
    assert bleu.bleu(list("aaaa"), list("abcd")) == pytest.approx(want)
    assert bleu.bleu(list("ab"), list("ab")) == 1
    assert bleu.bleu(list("ab"), list("cd")) == 0


def test_bleu_is_nltks():
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    smooth = nltk.SmoothingFunction().method1
    for a, b in [("abcabd", "abcdab"), ("aabb", "abababab"), ("abcdefg", "gfabcd")]:
        want = nltk.sentence_bleu([list(b)], list(a), smoothing_function=smooth)
        assert bleu.bleu(list(a), list(b)) == pytest.approx(want)


def test_tokens():
    assert bleu.tokens("x+=f(a1, 2.5)//3") == [
        "x",
        "+=",
        "f",
        "(",
        "a1",
        ",",
        "2.5",
        ")",
        "//",
        "3",
    ]


def test_keywords_weigh_more():
    reference = ["return", "x", ";", "y"]
    no_keyword, no_name = ["z", "x", ";", "y"], ["return", "z", ";", "y"]
    # Alike but for n-grams, so compare the unigrams' share by hand: 0.6 / 1.6 and 1.4 / 1.6.
    keywords = {"return"}
    first = bleu.weighted_recall(no_keyword, reference, keywords)
    assert first == pytest.approx((0.6 / 1.6 * 2 / 3 * 1 / 2 * 0.1) ** 0.25)
    second = bleu.weighted_recall(no_name, reference, keywords)
    assert second == pytest.approx((1.4 / 1.6 * 1 / 3 * 0.1 / 2 * 0.1) ** 0.25)


@needs_sitter
@pytest.mark.parametrize("language", SAMPLES)
def test_order(language):
    code = SAMPLES[language]
    assert set(metrics.similarity(language, code, code).values()) == {1.0}
    copy = metrics.similarity(language, renamed(code), code)
    assert renamed(code) != code
    assert copy["syntax"] == copy["dataflow"] == 1
    assert 0.1 < copy["bleu"] < 1
    other = metrics.similarity(language, UNRELATED[language], code)
    assert other["codebleu"] < 0.1 < copy["codebleu"]
    parts = [copy[k] for k in ("ngram", "weighted", "syntax", "dataflow")]
    assert copy["codebleu"] == pytest.approx(sum(parts) / 4)


@needs_sitter
@pytest.mark.parametrize("language", SAMPLES)
def test_data_flow(language):
    found = edges(language, SAMPLES[language])
    assert ("total", "computed from", ("beta",)) in found or language == "python"
    assert ("total", "computed from", ("total", "it")) in found
    assert ("it", "computed from", ("alpha",)) in found
    assert ("total", "comes from", ("total",)) in found


@needs_sitter
def test_data_flow_of_details():
    assert edges("python", "a = 1\nb = 2\na, b = b, a")[:2] == [
        ("a", "computed from", ("b",)),
        ("b", "computed from", ("a",)),
    ]
    # The index is used, not bound; the attribute and the keyword are no variables.
    found = edges("python", "def f(a, i, v):\n    a[i] = g.v(v=3)")
    assert found == [("i", "comes from", ("i",))]
    assert ("x", "computed from", ("x",)) in edges("go", "package m\nfunc f(x int) { x++ }")
    # `Some` and `None` are constants, not variables that the pattern binds.
    found = edges("rust", "fn f(o: i) { match o { Some(r) => r, None => 0 } }")
    assert found == [("o", "comes from", ("o",)), ("r", "comes from", ("r",))]


@needs_sitter
def test_a_changed_flow_is_seen():
    a = "def f(a, b):\n    c = a\n    return c"
    b = "def f(a, b):\n    c = 1\n    return a"
    assert metrics.similarity("python", b, a)["dataflow"] < 1
    assert metrics.similarity("python", "x(1)", "print(1)")["dataflow"] == 1  # none to find


@needs_sitter
def test_empty_and_broken():
    assert set(metrics.similarity("python", "", "x = 1").values()) == {0.0}
    assert set(metrics.similarity("python", " ", "").values()) == {1.0}
    for language, code in SAMPLES.items():
        broken = metrics.similarity(language, code[: len(code) // 2] + " (((\udc80\0é", code)
        assert 0 < broken["codebleu"] < 1


@needs_sitter
@pytest.mark.parametrize("language", SAMPLES)
@pytest.mark.parametrize(
    "code", ["(" * 30_000, "x = " * 30_000, "a[" * 20_000 + "0", "x = y + 1;\n" * 90_000]
)
def test_pathological_code_ends(language, code):
    scores = metrics.similarity(language, code, SAMPLES[language])
    assert all(0 <= s <= 1 for s in scores.values())


@needs_sitter
def test_add_scores(monkeypatch):
    calls = []
    real = metrics.similarity
    monkeypatch.setattr(metrics, "similarity", lambda *a: calls.append(a) or real(*a))
    rows = [
        {"language": "go", "task_id": "Go/0", "code": SAMPLES["go"]},
        {"language": "go", "task_id": "Go/0", "code": SAMPLES["go"]},
        {"language": "go", "task_id": "Go/1", "code": "x"},
        {"language": "go", "task_id": "Go/0", "code": None},
    ]
    metrics.add_scores(rows, {("go", "Go/0"): SAMPLES["go"]})
    assert [r["bleu"] for r in rows] == [1, 1, None, 0]
    assert [r["codebleu"] for r in rows] == [1, 1, None, 0]
    assert len(calls) == 2


def test_missing_tree_sitter(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(tree.importlib.util, "find_spec", lambda name: None)
    tree._parser.cache_clear()
    codebleu.features.cache_clear()
    assert not metrics.available()
    with pytest.raises(GeexError, match=re.escape('pip install "geex-jax[metrics]"')):
        metrics.similarity("python", "x", "y")


def test_unknown_language():
    with pytest.raises(GeexError, match="python"):
        metrics.similarity("pyhton", "x", "y")
