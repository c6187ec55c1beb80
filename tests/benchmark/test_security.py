"""Security findings: each rule hits what it is for, and not its neighbour."""

import pytest

from geex_jax.benchmark import security
from geex_jax.benchmark.security.rules import ALL, RULES

CASES = [
    ("geex-eval", "python", "eval(x)", "literal_eval(x)"),
    ("geex-eval", "javascript", "new Function(x)", "new Functional(x)"),
    ("geex-shell", "python", "os.system(x)", "# os.system(x)"),
    ("geex-shell", "cpp", 'system("ls");', "filesystem(x);"),
    ("geex-process", "java", "Runtime.getRuntime().exec(x);", "executor.execute(x);"),
    ("geex-process", "javascript", "require('child_process')", "// child_process"),
    ("geex-process", "go", "exec.Command(x)", 's := "exec.Command(x)"'),
    ("geex-process", "rust", "Command::new(x)", "Commander::newer(x)"),
    ("geex-unbounded-copy", "cpp", "strcpy(a, b);", "strncpy(a, b, 3);"),
    ("geex-unbounded-scan", "cpp", 'scanf("%s", a);', 'scanf("%d", &a);'),
    ("geex-deserialisation", "python", "pickle.loads(x)", "json.loads(x)"),
    ("geex-deserialisation", "java", "new ObjectInputStream(x)", "new InputStream(x)"),
    ("geex-secret", "python", 'password = "hunter22"', "password = read()"),
    ("geex-weak-hash", "go", "md5.Sum(x)", "sha256.Sum256(x)"),
    ("geex-weak-cipher", "java", 'getInstance("DES")', 'getInstance("AES/GCM")'),
    ("geex-weak-random", "javascript", "let token = Math.random()", "let x = Math.random()"),
    ("geex-sql", "python", '"SELECT * FROM t WHERE x=" + y', '"SELECT * FROM t"'),
    ("geex-no-verify", "python", "get(u, verify=False)", "get(u, verify=True)"),
    ("geex-world-writable", "python", "os.chmod(p, 0o777)", "os.chmod(p, 0o700)"),
    ("geex-temporary-name", "cpp", "tmpnam(b);", "mkstemp(b);"),
    ("geex-unsafe", "rust", "unsafe { *p }", "safe { p }"),
    ("geex-unsafe", "go", "unsafe.Pointer(&x)", "pointer(&x)"),
    ("geex-inner-html", "javascript", "e.innerHTML = x", "e.textContent = x"),
]


def rules(language, code):
    return {f["rule"] for f in security.findings(language, code)}


@pytest.mark.parametrize(("rule", "language", "hit", "miss"), CASES)
def test_a_rule_hits_and_does_not(rule, language, hit, miss):
    assert rule in rules(language, hit)
    assert rule not in rules(language, miss)


def test_every_rule_has_a_case():
    assert {f"geex-{rule.name}" for rule in RULES} == {case[0] for case in CASES}


def test_lines_and_strings():
    code = 'x = """\neval(1)\n"""\n\neval(2)\n'
    assert [(f["rule"], f["line"]) for f in security.findings("python", code)] == [("geex-eval", 5)]


@pytest.mark.parametrize("code", ["", "\0\udcff", "x" * 10**6, '"' * 10**6, "/*" * 10**5])
def test_any_text_is_read(code):
    for language in ALL:
        assert isinstance(security.findings(language, code), list)


def test_rows_get_findings_and_missing_tools_are_said(monkeypatch):
    monkeypatch.setattr(security.importlib.util, "find_spec", lambda name: None)
    rows = [{"language": "python", "code": "    return eval(x)\n"},
            {"language": "go", "code": "    return 1\n}\n"}]  # fmt: skip
    notes = security.add_findings(rows)
    assert [f["rule"] for f in rows[0]["findings"]] == ["geex-eval"] and rows[1]["findings"] == []
    assert any("bandit is not installed" in note for note in notes)


def test_bandit_takes_part_where_it_is():
    pytest.importorskip("bandit", reason="the extra [security] is not installed")
    rows = [{"language": "python", "code": "    x = 1\n    return eval(x)\n"}]
    security.add_findings(rows)
    found = {f["rule"]: f["line"] for f in rows[0]["findings"]}
    assert found == {"geex-eval": 2, "B307": 2}
