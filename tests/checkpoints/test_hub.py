"""A hub id as SOURCE, against a hub played on the loopback address; and without network."""

import hashlib
import http.server
import json
import pathlib
import re
import threading
import urllib.parse

import pytest

from geex_jax import checkpoints, cli
from geex_jax.checkpoints import convert, sources
from geex_jax.errors import GeexError
from tests.checkpoints import helpers
from tests.checkpoints.helpers import tensors_for

# The server below speaks as today's hub does; older clients ask in other ways.
pytest.importorskip("huggingface_hub", minversion="1.0")
constants = pytest.importorskip("huggingface_hub.constants")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """What `huggingface_hub` asks of a hub: a model's commit, its files, and each file."""

    protocol_version = "HTTP/1.1"
    root: pathlib.Path
    fetched: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        files = {str(p.relative_to(self.root)): p for p in self.root.rglob("*") if p.is_file()}
        if path.startswith("/api/models/org/name/tree/"):
            listed = [
                {"type": "file", "path": n, "size": p.stat().st_size, "oid": digest(p)}
                for n, p in files.items()
            ]
            self.answer(json.dumps(listed).encode())
        elif re.fullmatch(r"/api/models/org/name(/revision/(v1|main))?", path):
            siblings = [{"rfilename": name} for name in files]
            about = {"id": "org/name", "sha": COMMIT, "siblings": siblings, "private": False}
            self.answer(json.dumps(about).encode())
        elif (name := path.removeprefix(f"/org/name/resolve/{COMMIT}/")) in files:
            if self.command == "GET":
                self.fetched.append(name)
            self.answer(files[name].read_bytes(), ETag=f'"{digest(files[name])}"')
        else:
            self.answer(b'{"error": "not found"}', 404, **{"X-Error-Code": "RepoNotFound"})

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def digest(file: pathlib.Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def ask(monkeypatch, port: int) -> None:
    """Makes the hub be at a port of this machine, as HF_ENDPOINT does before the import."""
    old, new = constants.ENDPOINT, f"http://127.0.0.1:{port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(old, new)
    monkeypatch.setattr(constants, "ENDPOINT", new)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that serves `hub.root`; `hub.fetched` lists the files it gave."""
    state = type("Served", (Hub,), {"root": tmp_path / "served", "fetched": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), state)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ask(monkeypatch, server.server_port)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.chdir(tmp_path)
    yield state
    server.shutdown()
    server.server_close()


def served(hub, form: str) -> None:
    helpers.write_hf(hub.root, "llama", helpers.LLAMA, tensors_for("hf"), form)


def test_safetensors_are_preferred(hub, tmp_path):
    served(hub, "sharded")
    served(hub, "bin")
    (hub.root / "onnx").mkdir()
    for other in ("adapter.safetensors", "onnx/model.safetensors", "weights.h5", "run.py"):
        (hub.root / other).write_bytes(b"not for us")
    (hub.root / "LICENSE").write_text("free")
    model = convert("org/name@v1", tmp_path / "m")
    weights = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    wanted = ["LICENSE", "config.json", *weights, "model.safetensors.index.json"]
    assert sorted(hub.fetched) == wanted
    about = checkpoints.read_config(model)["provenance"]["source"]
    assert about["name"] == "org/name@v1" and sorted(about["files"]) == weights
    assert (model / "source" / "LICENSE").read_text() == "free"


def test_pytorch_files_where_there_is_nothing_else(hub, tmp_path, capsys):
    served(hub, "sharded_bin")
    assert cli.main(["convert", "org/name", str(tmp_path / "m")]) == 0
    weights = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    assert sorted(hub.fetched) == ["config.json", *weights, "pytorch_model.bin.index.json"]
    hub.fetched.clear()
    assert cli.main(["convert", "org/name", str(tmp_path / "n")]) == 0
    assert hub.fetched == []  # they are in the cache
    assert "family llama" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["offline", "closed port"])
def test_without_network(hub, tmp_path, monkeypatch, capsys, how):
    served(hub, "sharded")
    convert("org/name", tmp_path / "m")
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        ask(monkeypatch, 1)
    convert("org/name", tmp_path / "again")  # what was fetched is still there
    before = sorted(p.name for p in tmp_path.iterdir())
    assert cli.main(["convert", "org/other", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("geex: error: no file or folder org/other, and the hub does not give")
    for word in ("config.json", "model.safetensors", "model.safetensors.index.json"):
        assert word in said
    assert "pytorch_model*.bin" in said and "tokenizer" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_what_the_hub_does_not_have(hub, tmp_path):
    served(hub, "safetensors")
    for name in ("org/nothing", "org/name@v9"):
        with pytest.raises(GeexError, match=f"no file or folder {name}, and the hub") as error:
            convert(name, tmp_path / "m")
        assert "\n" not in str(error.value)
    (hub.root / "model.safetensors").unlink()
    with pytest.raises(GeexError, match=r"no weights; bring model\.safetensors"):
        convert("org/name", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_is_no_hub_id_is_not_asked_for(hub, tmp_path):
    for name in ("nothing", "a/b/c", "./org/name", "/org/name", "org/name@"):
        with pytest.raises(GeexError, match="no checkpoint at"):
            sources.open_source(name)
    folder = tmp_path / "org" / "name"
    helpers.write_hf(folder, "llama", helpers.LLAMA, tensors_for("hf"))
    assert sources.open_source("org/name").path == pathlib.Path("org/name")  # a folder comes first
    assert hub.fetched == []
