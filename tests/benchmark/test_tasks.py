"""Problems: the published files, other files in their format, damaged ones, the download."""

import gzip
import http.server
import json
import pathlib
import threading
import urllib.parse

import pytest

from geex_jax.benchmark.humaneval_x import tasks
from geex_jax.errors import GeexError

FIELDS = {"prompt": "p", "declaration": "d", "canonical_solution": "s", "test": "t"}


def row(task_id: str, **more: str) -> dict[str, str]:
    extra = {"import": "", "test_setup": ""} if task_id.startswith("Go") else {}
    return {"task_id": task_id, **FIELDS, **extra, **more}


def write(path: pathlib.Path, rows, compress: bool = False) -> pathlib.Path:
    data = "".join(json.dumps(r) + "\n" for r in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if compress else data)
    return path


def whole(known: tasks.Names) -> list[dict[str, str]]:
    return [row(f"{known.prefix}/{i}") for i in range(tasks.COUNT)]


@pytest.mark.parametrize("language", tasks.NAMES)
def test_the_published_files(shared, language):
    problems = tasks.load(language, shared / "humaneval-x")
    prefix = tasks.NAMES[language].prefix
    assert [p["task_id"] for p in problems] == [f"{prefix}/{i}" for i in range(164)]
    assert tasks.of(problems[3]["task_id"]).name == language


def test_names():
    for said, name in [("C++", "cpp"), ("CPP", "cpp"), ("cxx", "cpp"), ("js", "javascript"),
                       ("node", "javascript"), ("golang", "go"), ("rs", "rust"), ("PY", "python"),
                       ]:  # fmt: skip
        assert tasks.names(said).name == name
    assert tasks.names("cpp").tag == "// language: C++"
    with pytest.raises(GeexError, match="did you mean rust"):
        tasks.names("rusty")
    with pytest.raises(GeexError, match="no tasks in language 'kotlin'"):
        tasks.names("kotlin")  # a language of the paper, but not of the benchmark


@pytest.mark.parametrize(
    "name", ["humaneval_js.jsonl.gz", "humanevalx_js.jsonl.gz", "humaneval_js.jsonl",
             "data/js/data/humaneval.jsonl", "js/data/humaneval_js.jsonl.gz"]
)  # fmt: skip
def test_layouts(tmp_path, monkeypatch, name):
    write(tmp_path / name, whole(tasks.NAMES["javascript"]), compress=name.endswith("gz"))
    assert len(tasks.load("js", tmp_path)) == 164
    monkeypatch.setenv("GEEX_HUMANEVAL_X", str(tmp_path))
    assert len(tasks.load("js")) == 164


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.delenv("GEEX_HUMANEVAL_X", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tasks.cache_folder() == tmp_path / "geex" / "humaneval-x"
    with pytest.raises(GeexError, match="--download"):
        tasks.load("python")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert tasks.cache_folder() == tmp_path / "home" / ".cache" / "geex" / "humaneval-x"
    with pytest.raises(GeexError, match="no file or folder"):
        tasks.load("python", tmp_path / "nothing")


def test_one_file_of_several_languages_and_any_number(tmp_path):
    path = write(tmp_path / "x.jsonl", [row("Go/a-1"), row("CPP/a-1"), row("Go/b-2")])
    assert [p["task_id"] for p in tasks.load("go", path)] == ["Go/a-1", "Go/b-2"]
    with pytest.raises(GeexError, match="no tasks of Rust"):
        tasks.load("rust", path)
    write(tmp_path / "held-out_go.jsonl", [row("Go/a-1")])
    assert len(tasks.load("go", tmp_path)) == 1
    write(tmp_path / "train_go.jsonl", [row("Go/a-1")])
    with pytest.raises(GeexError, match=r"several files .*held-out_go\.jsonl, train_go\.jsonl"):
        tasks.load("go", tmp_path)


def test_damage_is_named(tmp_path):
    known = tasks.NAMES["go"]
    path = tmp_path / "humaneval_go.jsonl"

    def says(rows, message, tail=b"", cut=None):
        write(path, rows)
        path.write_bytes((path.read_bytes() + tail)[:cut])
        with pytest.raises(GeexError, match=message) as error:
            tasks.load("go", tmp_path)
        assert "\n" not in str(error.value)

    says(whole(known)[:-1], "has 163 tasks, HumanEval-X has 164")
    says([*whole(known)[:3], row("Go/1")], "line 4: task Go/1 appears twice")
    says([row("Go/0"), row("Rust/1")], "line 2: task Rust/1 is not of Go")
    says([{"task_id": "Go/0", **FIELDS}], "line 1: task Go/0 has no text 'import'")
    says([row("Go/0", test=None)], "has no text 'test'")
    says([{"prompt": "x"}], "line 1: no task_id as in Go/0")
    says([row("Go/0")], r"line 2: not JSON \(Expecting value", tail=b"nonsense\n")
    says([row("Go/0"), row("Go/1")], r"line 2: not JSON", cut=-30)
    says([row("Go/0")], "line 2: list, not an object", tail=b"[]\n")
    says([row("Go/0")], "line 2, byte 13: not UTF-8", tail=b'{"task_id": "\xff"}\n')
    says([], "no tasks of Go")
    data = gzip.compress("".join(json.dumps(r) + "\n" for r in whole(known)).encode())
    for cut, reason in [(len(data) // 2, "not readable"), (-4, "not readable after line 164")]:
        path.write_bytes(data[:cut])
        with pytest.raises(GeexError, match=reason):
            tasks.load("go", tmp_path)


def test_rust_of_codegeex2_is_brought_to_the_published_form(tmp_path, shared):
    published = tasks.load("rust", shared / "humaneval-x")
    later = [p | {"prompt": p["prompt"] + p["declaration"]} for p in published]
    read = tasks.load("rust", write(tmp_path / "later.jsonl", later))
    assert [p["prompt"].strip() for p in read] == [p["prompt"].strip() for p in published]


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with five languages of a data set, and a repository with the sixth."""

    protocol_version = "HTTP/1.1"
    broken = False

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        for known in tasks.NAMES.values():
            body = "".join(json.dumps(r) + "\n" for r in whole(known)).encode()
            if self.broken:
                body = body[:-50]
            if path.endswith(f"/resolve/main/data/{known.data}/data/humaneval.jsonl"):
                if path.startswith("/datasets/THUDM/humaneval-x/") and known.name != "rust":
                    return self.answer(body, ETag=f'"{known.name}"', **{"X-Repo-Commit": "0" * 40})
            elif path == f"/origin/{known.data}/data/humaneval_{known.data}.jsonl.gz":
                return self.answer(gzip.compress(body))
        return self.answer(b"", 404, **{"X-Error-Code": "EntryNotFound"})

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", minversion="1.0")
    constants = pytest.importorskip("huggingface_hub.constants")
    state = type("Served", (Hub,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), state)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, here)
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(tasks, "ORIGIN", f"{here}/origin")
    monkeypatch.setenv("GEEX_HUMANEVAL_X", str(tmp_path / "data"))
    yield state
    server.shutdown()
    server.server_close()


def test_download(hub, tmp_path):
    files = tasks.download()
    assert [f.name for f in files] == [f"humaneval_{x.data}.jsonl.gz" for x in tasks.NAMES.values()]
    for language in tasks.NAMES:
        assert len(tasks.load(language)) == 164
    (only,) = tasks.download(tmp_path / "other", ["C++"])
    assert only == tmp_path / "other" / "humaneval_cpp.jsonl.gz"


def test_a_broken_download_leaves_what_was_there(hub, tmp_path):
    tasks.download()
    before = {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir()}
    hub.broken = True
    with pytest.raises(GeexError, match=r"neither the hub .* in Rust .*not JSON") as error:
        tasks.download(languages=["rust"])
    assert "humaneval_rust.jsonl.gz into" in str(error.value) and "\n" not in str(error.value)
    assert {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir()} == before
