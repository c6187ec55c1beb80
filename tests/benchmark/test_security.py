from __future__ import annotations

import importlib.util

import pytest

from geex_jax.benchmark import security
from geex_jax.benchmark.security import bandit_tool
from geex_jax.benchmark.security.blank import LANGUAGES, blank
from geex_jax.errors import GeexError

# rule, language, what hits, what must not
CASES = [
    ("eval", "python", "return eval(text)", "return ast.literal_eval(text) or model.eval()"),
    ("eval", "javascript", "return new Function(s)()", "return evaluate(s) + new Functional()"),
    ("eval", "java", "ScriptEngine e = m.getEngine();", "ScriptEngines e = null;"),
    ("shell", "python", "subprocess.run(c, shell=True)", "subprocess.run(c, shell=False)"),
    ("shell", "cpp", "system(s.c_str());", "file.system(s); ecosystem(1);"),
    ("shell", "java", "Runtime.getRuntime().exec(c);",
     "Runtime.getRuntime().availableProcessors();"),
    ("shell", "javascript", "require('child_process').exec(c)", "pattern.exec(text)"),
    ("shell", "go", 'exec.Command("sh", "-c", s)', 'exec.Command("ls", "-l")'),
    ("shell", "rust", 'Command::new("sh").arg("-c")', 'Command::new("ls").arg("-l")'),
    ("buffer-overflow", "cpp", "strcpy(a, b);",
     "strncpy(a, b, n); snprintf(a, n, b); fgets(a, n, f);"),
    ("buffer-overflow", "cpp", 'scanf("%s", a);', 'scanf("%9s", a); printf("%s", a);'),
    ("unsafe-deserialization", "python", "yaml.load(f)",
     "yaml.safe_load(f); yaml.load(f, SafeLoader)"),
    ("unsafe-deserialization", "java", "new ObjectInputStream(in)", "new DataInputStream(in)"),
    ("hard-coded-secret", "python", 'db_password = "hunter22"',
     'password = os.environ["PASSWORD"]'),
    ("hard-coded-secret", "cpp", 'string api_key = "abcdef123";', 'if (token == "abcdef123") {}'),
    ("hard-coded-secret", "java", 'String password = "hunter22";',
     'String passwords = "hunter22";'),
    ("hard-coded-secret", "javascript", 'x = {secret: "hunter22"}', 'const token = words[0]'),
    ("hard-coded-secret", "go", 'password := "hunter22"', 'token := "ab"'),
    ("hard-coded-secret", "rust", 'let token: &str = "hunter22";', 'let token: String = next();'),
    ("weak-hash", "python", "hashlib.md5(b)", "hashlib.sha256(b)"),
    ("weak-hash", "java", 'MessageDigest.getInstance("MD5")',
     'MessageDigest.getInstance("SHA-256")'),
    ("weak-hash", "javascript", "createHash('md5')", "createHash('sha256')"),
    ("weak-hash", "go", "md5.Sum(b)", "sha256.Sum256(b)"),
    ("weak-hash", "cpp", "MD5(a, n, b);", "SHA256(a, n, b);"),
    ("weak-hash", "rust", "md5::compute(s)", "Sha256::digest(s)"),
    ("weak-cipher", "python", "AES.new(k, AES.MODE_ECB)", "AES.new(k, AES.MODE_GCM)"),
    ("weak-cipher", "java", 'Cipher.getInstance("AES/ECB/NoPadding")',
     'Cipher.getInstance("AES/GCM/NoPadding")'),
    ("weak-cipher", "javascript", "createCipheriv('aes-128-ecb', k, '')",
     "createCipheriv('aes-128-gcm', k, v)"),
    ("weak-cipher", "go", "des.NewCipher(k)", "aes.NewCipher(k)"),
    ("weak-cipher", "cpp", "EVP_aes_128_ecb()", "EVP_aes_128_gcm()"),
    ("weak-random", "python", "token = random.randint(0, 9)", "count = random.randint(0, 9)"),
    ("weak-random", "cpp", "int password = rand();", "int x = rand();"),
    ("weak-random", "java", "double salt = Math.random();", "double x = Math.random();"),
    ("weak-random", "javascript", "const token = Math.random()",
     "const token = crypto.randomUUID()"),
    ("weak-random", "go", "token := rand.Intn(9)", "token := words.Intn(9)"),
    ("sql-injection", "python", 'q = "SELECT a FROM t WHERE b = " + b',
     'q = "select one from " + b'),
    ("sql-injection", "python", 'q = f"DELETE FROM t WHERE b = {b}"',
     'q = "DELETE FROM t WHERE b = ?"'),
    ("sql-injection", "cpp", 's = "SELECT a FROM t WHERE b = \'" + b;',
     's = "SELECT a FROM t WHERE 1";'),
    ("sql-injection", "java", 's = "SELECT a FROM t WHERE b = " + b;', 's = "SELECT" + b;'),
    ("sql-injection", "java", 'String.format("SELECT a FROM t WHERE b=%s", b)',
     'String.format("%s", b)'),
    ("sql-injection", "javascript", "q = `SELECT a FROM t WHERE b = ${b}`",
     "q = `SELECT a FROM t WHERE 1`"),
    ("sql-injection", "go", 'fmt.Sprintf("DELETE FROM t WHERE b=%s", b)',
     'fmt.Sprintf("DELETE %s", b)'),
    ("sql-injection", "rust", 'format!("DELETE FROM t WHERE b={}", b)', 'format!("DELETED {}", b)'),
    ("tls-unchecked", "python", "get(u, verify=False)", "get(u, verify=True)"),
    ("tls-unchecked", "javascript", "{rejectUnauthorized: false}", "{rejectUnauthorized: true}"),
    ("tls-unchecked", "go", "InsecureSkipVerify: true", "InsecureSkipVerify: false"),
    ("tls-unchecked", "rust", "danger_accept_invalid_certs(true)",
     "danger_accept_invalid_certs(false)"),
    ("tls-unchecked", "cpp", "set(c, CURLOPT_SSL_VERIFYPEER, 0L);",
     "set(c, CURLOPT_SSL_VERIFYPEER, 1L);"),
    ("tls-unchecked", "java", "NoopHostnameVerifier.INSTANCE", "DefaultHostnameVerifier.INSTANCE"),
    ("world-writable", "python", "os.chmod(p, 0o777)", "os.chmod(p, 0o755)"),
    ("world-writable", "cpp", "chmod(p, 0666);", "chmod(p, 0644);"),
    ("world-writable", "javascript", "fs.chmodSync(p, 0o777)", "fs.chmodSync(p, 0o700)"),
    ("world-writable", "go", "os.Chmod(p, 0777)", "os.Chmod(p, 0700)"),
    ("world-writable", "rust", "Permissions::from_mode(0o777)", "Permissions::from_mode(0o755)"),
    ("world-writable", "java", "f.setWritable(true, false);", "f.setWritable(true, true);"),
    ("temp-file-race", "python", "tempfile.mktemp()", "tempfile.mkstemp()"),
    ("temp-file-race", "cpp", "tmpnam(a);", "mkstemp(a);"),
    ("unsafe-code", "rust", "unsafe { *p }", "let unsafe_ = { 1 };"),
    ("transmute", "rust", "std::mem::transmute::<u32, f32>(x)", "f32::from_bits(x)"),
    ("unsafe-code", "go", "p := unsafe.Pointer(&x)", "p := unsafely.Pointer(&x)"),
    ("path-traversal", "python", 'open("/data/" + name)', 'open("/data/names")'),
    ("path-traversal", "cpp", 'fopen("/data/" + name, m)', 'fopen("/data/x", m)'),
    ("path-traversal", "java", 'new File("/data/" + name)', 'new File("/data/x")'),
    ("path-traversal", "javascript", "fs.readFileSync(`/data/${name}`)",
     "fs.readFileSync(`/data/x`)"),
    ("path-traversal", "go", 'os.Open(folder + "/" + name)', 'os.Open(filepath.Base(name))'),
    ("path-traversal", "rust", 'File::open(format!("/data/{}", name))', 'File::open("/data/x")'),
]  # fmt: skip


def names(language, code):
    return [x["rule"] for x in security.findings(language, code)]


@pytest.mark.parametrize("rule, language, hit, miss", CASES)
def test_each_rule_hits_and_misses(rule, language, hit, miss):
    assert rule in names(language, hit)
    assert rule not in names(language, miss)
    mark = "#" if language == "python" else "//"
    assert not names(language, f"x {mark} {hit}")


def test_every_rule_is_tried_in_every_language():
    tried = {(rule, language) for rule, language, *_ in CASES}
    assert tried == {(x.name, language) for x in security.RULES for language in x.languages}
    assert {x.severity for x in security.RULES} == {"low", "medium", "high"}
    for rule in security.RULES:
        assert "\n" not in rule.message and set(rule.languages) <= set(LANGUAGES)


def test_lines_and_words():
    code = "/* system(\n */\nint f() {\n  system(a); system(b);\r\n  strcpy(a, b);\n}"
    assert security.findings("cpp", code) == [
        {"rule": "shell", "severity": "high", "line": 4,
         "message": "runs a command through a shell"},
        {"rule": "buffer-overflow", "severity": "high", "line": 5,
         "message": "writes without the length of its target"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "language, code",
    [
        ("python", '"""eval(x)\n\'eval(x)""" + "\\"eval(x)" + \'eval(x)\''),
        ("python", "print('open(\"/a/\" + b)')"),
        ("cpp", 'auto s = R"x(a" system(b) )")x"; // system(a)'),
        ("cpp", "int n = 1'000'000; char c = '\"'; /* system(a) */ char d = '\"';"),
        ("java", 'String s = """\n " Runtime.getRuntime().exec(c)\n""";'),
        ("javascript", "const s = `eval(x)\neval(y)`, r = /['\"`/]/g; // eval(x)"),
        ("go", 's := `unsafe.Pointer\n"unsafe.Pointer`'),
        ("rust", 'fn f<\'a>(s: &\'a str) { g(r#"" unsafe { "#, \'"\', "unsafe {"); }'),
    ],
)
def test_strings_and_comments_are_not_code(language, code):
    assert not names(language, code)


def test_code_after_a_string_is_seen():
    assert names("rust", "fn f<'a>(x: &'a u8) { let q = '\"'; unsafe { g() } }") == ["unsafe-code"]
    assert names("javascript", "s.replace(/\"/g, ''); eval(s)") == ["eval"]
    assert names("cpp", "int n = 1'000; system(a);") == ["shell"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_hostile_text(language, monkeypatch):
    # Each of these takes minutes where a regex is quadratic.
    monkeypatch.setattr(security, "LONGEST", 50_000)
    for unit in ["x", "\0", '"\\', "(/[", "/*", "'", "`", 'R"(', 'r#"', "scanf(", "token", " "]:
        code = unit * (1_000_000 // len(unit))
        (found,) = [x for x in security.findings(language, code) if x["rule"] == "code-too-long"]
        assert found["severity"] == "low" and found["message"].startswith(f"{len(code):,} ")
    for part in blank(language, 'a "b\n/* c\n'):
        assert len(part) == len('a "b\n/* c\n') and part.count("\n") == 2
    assert security.findings(language, "") == []


def test_many_findings_are_cut():
    found = security.findings("python", "eval(x)\n" * 500)
    assert len(found) == security.MOST + 1 and found[-1]["rule"] == "too-many-findings"


def test_unknown_language():
    with pytest.raises(GeexError, match="python"):
        security.findings("pyhton", "")


def test_add_findings_without_bandit(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = [
        {"language": "python", "code": "eval(x)"},
        {"language": "python", "code": "eval(x)"},
        {"language": "rust", "code": "fn f() {}", "findings": [{"rule": "old"}]},
        {"language": "cobol", "code": "STOP RUN."},
        {"language": "go"},
    ]
    notes = security.add_findings(rows)
    assert [bool(x.get("findings")) for x in rows] == [True, True, False, False, False]
    assert rows[0]["findings"] is not rows[1]["findings"] and rows[2]["findings"] == []
    assert "findings" not in rows[3] and "findings" not in rows[4]
    assert len(notes) == 2 and "cobol" in notes[0] and "pip install bandit" in notes[1]
    assert not security.add_findings([{"language": "go", "code": "x"}])


def test_add_findings_with_bandit():
    pytest.importorskip("bandit")
    rows = [
        {"language": "python", "code": "    # a body\n    x = 1\n    return eval(s)  # nosec\n"},
        {"language": "python", "code": "import pickle\n\nx = pickle.loads(s)\nassert x\n"},
        {"language": "python", "code": "def f(:"},
        {"language": "python", "code": "x\0"},
        {"language": "go", "code": "eval(x)"},
    ]
    notes = security.add_findings(rows)
    found = [[(x["rule"], x["severity"], x["line"]) for x in row["findings"]] for row in rows]
    assert found[0] == [("B307", "medium", 3), ("eval", "high", 3)]
    assert found[1] == [
        ("B403", "low", 1), ("B301", "medium", 3), ("unsafe-deserialization", "high", 3)
    ]  # fmt: skip
    assert found[2:] == [[], [], []]
    assert notes == ["bandit could not read 2 of 4 distinct Python samples."]


def test_a_sample_that_breaks_bandit_costs_only_itself(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    hit = {"filename": "./0.py", "test_id": "B1", "issue_severity": "UNDEFINED",
           "line_number": 1, "issue_text": "a\nb"}  # fmt: skip

    def run(codes, seconds):
        return None if "bad" in codes else {"errors": [], "results": [hit]}

    monkeypatch.setattr(bandit_tool, "_run", run)
    found, notes = bandit_tool.scan(["a", "bad", "c"], 60)
    want = [{"rule": "B1", "severity": "low", "line": 1, "message": "a b"}]
    assert found == [want, [], want]
    assert notes == ["bandit could not read 1 of 3 distinct Python samples."]
    found, notes = bandit_tool.scan(["a", "bad", "c"], 0)
    assert found == [[], [], []] and "out of time" in notes[0]
