"""The sandbox: what a program may do, what it may not, and that nothing of it stays."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from geex_jax.benchmark.languages.python import Python
from geex_jax.benchmark.languages.types import Limits, Outcome, Program
from geex_jax.benchmark.sandbox import client, seccomp
from geex_jax.benchmark.sandbox.client import Sandbox
from geex_jax.errors import GeexError

LIMITS = Limits(cpu_seconds=1, wall_seconds=3, output_bytes=1 << 20, tmp_bytes=8 << 20)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def box(cache):
    with Sandbox(Python(), cache) as sandbox:
        yield sandbox


def judge(box, *codes, limits=LIMITS):
    programs = [Program(textwrap.dedent(code), "") for code in codes]
    verdicts = dict(box.judge(programs, limits))
    return [verdicts[i] for i in range(len(codes))]


def outcome(box, code, limits=LIMITS):
    return judge(box, code, limits=limits)[0].outcome


def test_a_program_that_ends_well_passes(box):
    assert outcome(box, "x = 1\nassert x == 1\n") is Outcome.PASSED


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("assert 1 == 2", Outcome.WRONG_ANSWER),
        ("1 / 0", Outcome.RUNTIME_ERROR),
        ("def f(:", Outcome.COMPILE_ERROR),
        ("while True: pass", Outcome.TIMEOUT),
        ("import time; time.sleep(60)", Outcome.TIMEOUT),
        ("x = bytearray(1 << 40)", Outcome.MEMORY),
        ("x = [bytes(1 << 26) for _ in range(99)]", Outcome.MEMORY),
        ("print('x' * (2 << 20))", Outcome.OUTPUT_LIMIT),
        ("import sys; sys.stderr.write('x' * (2 << 20))", Outcome.OUTPUT_LIMIT),
        ("import os; os.fork()", Outcome.VIOLATION),
        ("import subprocess; subprocess.run(['true'])", Outcome.VIOLATION),
        ("import os; os.execv('/bin/true', ['true'])", Outcome.VIOLATION),
        ("import socket; socket.socket()", Outcome.VIOLATION),
        ("import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)", Outcome.VIOLATION),
        ("open('/usr/x', 'w')", Outcome.VIOLATION),
        ("import os; os._exit(0)", Outcome.RUNTIME_ERROR),
        ("raise SystemExit(0)", Outcome.RUNTIME_ERROR),
        ("import builtins; builtins.abs = lambda x: 0", Outcome.RUNTIME_ERROR),
        ("def f(): return f()\nf()", Outcome.RUNTIME_ERROR),
        ("import os; os.kill(os.getpid(), 9)", Outcome.RUNTIME_ERROR),
        ("input()", Outcome.RUNTIME_ERROR),
        ("import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1)",
         Outcome.PASSED),
        ("import threading as t; x = t.Thread(target=int); x.start(); x.join()", Outcome.PASSED),
        ("open('/tmp/x', 'w').write('x'); assert open('/tmp/x').read() == 'x'", Outcome.PASSED),
    ],
)  # fmt: skip
def test_every_class_of_outcome(box, code, expected):
    assert outcome(box, code) is expected


def test_no_bytes_in_the_channel_but_the_proof_count(box):
    spray = """
    import os
    for fd in range(3, 300):
        try:
            data = os.read(fd, 100)
        except OSError:
            data = b""
        for text in (data, b"ok", b"passed"):
            try:
                os.write(fd, text)
            except OSError:
                pass
    """
    assert outcome(box, spray) is Outcome.RUNTIME_ERROR


def test_a_run_leaves_nothing_in_tmp_for_the_next(box):
    first = "import os; os.makedirs('/tmp/a/b'); open('/tmp/a/b/c', 'w').write('x')"
    second = "import os; assert os.listdir('/tmp') == []"
    assert [v.outcome for v in judge(box, first, second)] == [Outcome.PASSED] * 2


def test_tmp_is_bounded(box):
    fill = """
    with open('/tmp/x', 'wb') as one:
        for i in range(100):
            with open(f'/tmp/{i}', 'wb') as file:
                file.write(bytes(1 << 19))
    """
    assert outcome(box, fill) is Outcome.RUNTIME_ERROR


def test_the_host_is_not_to_be_seen(box, tmp_path):
    secret = tmp_path / "answers.jsonl"
    secret.write_text("the answers")
    code = f"""
    import os
    assert not os.path.exists({str(secret)!r})
    assert not os.path.exists('/home') and not os.path.exists('/var')
    assert set(os.environ) <= {{'PATH', 'LANG', 'HOME', 'LC_CTYPE', 'PYTHONDONTWRITEBYTECODE',
        'PYTHONHASHSEED', 'OPENBLAS_NUM_THREADS', 'OPENBLAS_CORETYPE'}}, os.environ
    pids = [x for x in os.listdir('/proc') if x.isdigit()]
    assert set(pids) <= {{str(os.getpid())}}, pids
    """
    verdict = judge(box, code)[0]
    assert verdict.outcome is Outcome.PASSED, verdict.message


def test_the_environment_of_the_host_stays_outside(cache, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with Sandbox(Python(), cache) as box:
        code = "import os; assert 'OPENAI_API_KEY' not in os.environ"
        assert outcome(box, code) is Outcome.PASSED


def test_a_listener_outside_hears_nothing(box):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        assert outcome(box, code) is Outcome.VIOLATION
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_process_of_ours_cannot_be_reached(box):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        code = f"""
        import os
        try:
            os.kill({process.pid}, 9)
        except ProcessLookupError:
            raise SystemExit
        """
        assert outcome(box, code) is Outcome.VIOLATION
        assert process.poll() is None
        process.communicate(b"\n")


def test_verdicts_do_not_depend_on_the_neighbours(box):
    codes = ["x = 1\n", "while True: pass", "import os; os.fork()", "print('x' * (9 << 20))"] * 2
    together = [v.outcome for v in judge(box, *codes)]
    alone = [judge(box, code)[0].outcome for code in codes]
    assert together == alone


def test_closing_ends_everything(cache):
    box = Sandbox(Python(), cache)
    assert outcome(box, "x = 1\n") is Outcome.PASSED
    pid = box._process.pid
    box.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_host_takes_the_sandbox_along(cache, tmp_path):
    code = (
        "import sys, pathlib\n"
        "from geex_jax.benchmark.languages.python import Python\n"
        "from geex_jax.benchmark.languages.types import Limits, Program\n"
        "from geex_jax.benchmark.sandbox.client import Sandbox\n"
        "box = Sandbox(Python(), pathlib.Path(sys.argv[1]))\n"
        "print(box._process.pid, flush=True)\n"
        "list(box.judge([Program('import time; time.sleep(60)', '')], Limits(wall_seconds=60)))\n"
    )
    command = [sys.executable, "-c", code, str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        inside = int(host.stdout.readline())
        host.send_signal(signal.SIGKILL)
        host.wait()
    for _ in range(100):
        try:
            os.kill(inside, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the sandbox outlived its host")


def test_without_namespaces_it_refuses_and_says_so(cache, monkeypatch):
    def refused(self, namespaces, filters):
        return launch(self, namespaces, filters) if not namespaces else "not here"

    launch = Sandbox._launch
    monkeypatch.setattr(Sandbox, "_launch", refused)
    with pytest.raises(GeexError, match=r"lacks namespaces: not here.*--unsafe-i-know"):
        Sandbox(Python(), cache)
    with Sandbox(Python(), cache, unsafe=True) as box:
        assert box.lacking == ["namespaces: not here"]
        assert outcome(box, "x = 1\n") is Outcome.PASSED
        assert outcome(box, "import socket; socket.socket()") is Outcome.VIOLATION
        first = "open('x', 'w').write('x')"
        second = "import os; assert os.listdir('.') == []"
        assert [v.outcome for v in judge(box, first, second)] == [Outcome.PASSED] * 2
        folders = list(box._temporary)
    assert folders and not any(map(os.path.exists, folders))


def test_without_seccomp_it_refuses(cache, monkeypatch):
    monkeypatch.setattr(client, "seccomp_works", lambda: False)
    with pytest.raises(GeexError, match="lacks seccomp"):
        Sandbox(Python(), cache)


def test_without_a_compiler_the_walls_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(client.native, "build", lambda *args, **more: None)
    with Sandbox(Python(), tmp_path) as box:
        codes = ["x = 1\n", "import os; os.fork()", "while True: pass", "open('/usr/x', 'w')"]
        assert [v.outcome for v in judge(box, *codes)] == [
            Outcome.PASSED, Outcome.VIOLATION, Outcome.TIMEOUT, Outcome.VIOLATION,
        ]  # fmt: skip


def test_the_filter_names_the_process_itself():
    program = seccomp.build(False)
    assert len(seccomp.pid_offsets(program)) == 4
    assert seccomp.pid_offsets(seccomp.for_pid(program, 42)) == []
    assert len(seccomp.build(True)) < len(program)
