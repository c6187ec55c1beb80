"""Jobs: launched, looked at, ended; on a worker for real, through the cloud by the stand-in."""

import os
import pathlib
import runpy
import subprocess
import sys
import time

import pytest

REMOTE = pathlib.Path(__file__).parent.parent.parent / "tpu_setup" / "remote"
HOSTS = 4  # of a v5litepod-16


class Worker:
    """One worker's job.sh, with a home of its own."""

    def __init__(self, home):
        self.env = {**os.environ, "GEEX_HOME": str(home), "HOME": str(home)}
        self.folder = home / "jobs" / "train"

    def __call__(self, verb, *words):
        return subprocess.run(
            ["bash", str(REMOTE / "job.sh"), verb, "train", *words],
            env=self.env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def state(self):
        return self("status").stdout.split("state=")[1].split()[0]

    def wait_for(self, text):
        for _ in range(600):
            if text in (self.folder / "log").read_text():
                return
            time.sleep(0.05)
        raise AssertionError(f"{text!r} never came: {(self.folder / 'log').read_text()}")


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path)
    yield worker
    worker("stop", "0")


def test_a_job_leaves_its_log_and_its_exit_status(worker):
    assert worker.state() == "none"
    assert worker("start", "--", "sh", "-c", "echo 'a  b'; exit 3").returncode == 0
    attached = worker("attach")
    assert attached.returncode == 3 and "a  b" in worker("log").stdout
    assert "state=failed code=3 seconds=" in worker("status").stdout
    assert worker("start", "--", "true").returncode == 0  # a second one in its place
    assert worker("attach").returncode == 0 and worker.state() == "done"


SAVES = """
import signal, sys, time
def end(*_):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


def test_stop_lets_the_program_save(worker):
    worker("start", "--", sys.executable, "-c", SAVES)
    worker.wait_for("\nready\n")
    again = worker("start", "--", "true")
    assert again.returncode == 2 and "runs already" in again.stderr
    assert "ended" in worker("stop", "30").stdout
    assert "\nsaved\n" in worker("log").stdout
    assert "state=stopped code=0" in worker("status").stdout


def test_a_machine_taken_away_is_no_end(worker):
    worker("start", "--", sys.executable, "-c", SAVES)
    worker.wait_for("\nready\n")
    pid = int((worker.folder / "pid").read_text().split()[0])
    os.kill(pid, 15)  # as the shutdown of the machine does
    assert worker("attach").returncode == 0
    assert "state=terminated code=0" in worker("status").stdout


def test_what_ignores_sigterm_is_killed_with_its_children(worker):
    code = "trap '' TERM; sleep 300 & echo child $!; wait; sleep 300"
    worker("start", "--", "bash", "-c", code)
    worker.wait_for("\nchild ")
    child = int(worker("log").stdout.split("\nchild ")[1].split()[0])
    assert "killed" in worker("stop", "1").stdout
    assert worker.state() == "lost"
    for _ in range(100):
        try:
            gone = pathlib.Path(f"/proc/{child}/stat").read_text().rsplit(") ", 1)[1][0] == "Z"
        except OSError:
            gone = True
        if gone:
            break
        time.sleep(0.05)
    assert gone


def test_a_recycled_pid_is_never_killed(worker):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        worker.folder.mkdir(parents=True)
        (worker.folder / "started").write_text("0")
        (worker.folder / "pid").write_text(f"{bystander.pid} 12345\n")
        assert "does not run" in worker("stop", "0").stdout
        assert worker.state() == "lost"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_device_check_counts(monkeypatch, capsys):
    import jax

    check = runpy.run_path(str(REMOTE / "check.py"))["main"]
    for expected, status in ((999, 1), (jax.device_count(), 0)):
        monkeypatch.setattr(sys, "argv", ["check.py", "--alone", "--devices", str(expected)])
        assert check() == status
    out = capsys.readouterr()
    assert "process 0 of 1" in out.out and out.err == "expected 999 devices\n"


def lines(*states):
    """What status says of each worker."""
    return "".join(f"geex-job train state={s} host=w{i}\n" for i, s in enumerate(states))


def everywhere(state):
    return lines(*[state] * HOSTS)


def test_launch_quotes_what_it_is_given(cloud):
    done = cloud.run("launch", "--job", "a", "--", "geex", "train", "--config.name=it's a b")
    assert done.returncode == 0, done.stderr
    assert cloud.calls()[0].endswith(
        "--worker=all --command=bash .geex/job.sh start a -- geex train "
        "'--config.name=it'\\''s a b'"
    )
    shell = cloud.calls()[0].split("--command=bash .geex/job.sh ")[1]
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {shell}"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.splitlines()[-1] == "--config.name=it's a b"


def test_log_attach_and_kill_reach_the_right_worker(cloud):
    for words in (["log", "--worker", "2", "--lines", "7"], ["attach"], ["kill", "--grace=5"]):
        assert cloud.run(*words, "--slices", "2", "--slice=1").returncode == 0
    log, attach, *kills = cloud.calls()
    assert "ssh geex-1" in log and log.endswith(
        "--worker=2 --command=bash .geex/job.sh log train 7"
    )
    assert "ssh geex-1" in attach and "--worker=0 --command=bash .geex/job.sh attach" in attach
    assert sorted(k.split()[4] for k in kills) == ["geex-0", "geex-1"]
    assert all(k.endswith("--worker=all --command=bash .geex/job.sh stop train 5") for k in kills)


def test_attach_ends_as_the_job_did(cloud):
    cloud.answer("attach", ["the log\n", "", 7])
    assert cloud.run("attach").returncode == 7


def test_status_shows_the_slice_and_the_jobs(cloud):
    cloud.answer("describe", "READY\n")
    cloud.answer("job.sh status", everywhere("running pid=1 seconds=5"))
    out = cloud.run("status").stdout
    assert out.startswith("geex: READY\n") and out.count("state=running") == HOSTS


RESUME = ["resume", "--poll", "0", "--package", "geex-jax==1.2.3", "--bucket", "my-bucket"]
JOB = ["--", "geex", "train", "--workdir=bucket/runs/a"]


def kinds(calls):
    """The calls that change something, as words."""
    found = []
    for call in calls:
        for kind, text in (
            ("create", " create "), ("delete", " delete "), ("install", "install.sh --python"),
            ("check", "check.py --devices"), ("stop", "job.sh stop"), ("start", "job.sh start"),
        ):  # fmt: skip
            if text in call:
                found.append(kind)
    return found


def test_resume_lives_through_a_preemption(cloud):
    states = ["ACTIVE", "ACTIVE", "ACTIVE", "SUSPENDED", "ACCEPTED", "ACTIVE"]
    cloud.answer("queued-resources describe", *[f"{state}\n" for state in states])
    cloud.answer("tpu-vm describe", "READY\n")
    running, done = everywhere("running pid=1 seconds=5"), everywhere("done code=0 seconds=9")
    cloud.answer("job.sh status", everywhere("none"), running, running, everywhere("none"), done)
    out = cloud.run(*RESUME, "--spot", "--queued", *JOB)
    assert out.returncode == 0, out.stderr
    once = ["stop", "start"]
    assert kinds(cloud.calls()) == [*once, "delete", "create", "install", "check", *once]
    assert "job train ended well" in out.stderr


def test_a_preempted_slice_of_an_active_request_is_seen(cloud):
    cloud.answer("queued-resources describe", "ACTIVE\n")
    cloud.answer("tpu-vm describe", "PREEMPTED\n", "READY\n")
    cloud.answer("job.sh status", everywhere("done code=0 seconds=9"))
    out = cloud.run(*RESUME, "--queued", *JOB)
    assert out.returncode == 0, out.stderr
    assert kinds(cloud.calls()) == ["delete", "create", "install", "check"]


@pytest.mark.parametrize("state", ["lost", "terminated code=0 seconds=9"])
def test_a_run_that_was_interrupted_goes_on(cloud, state):
    cloud.answer("describe", "READY\n")
    mixed = lines(state, *["done code=0 seconds=9"] * (HOSTS - 1))
    cloud.answer("job.sh status", mixed, everywhere("done code=0 seconds=99"))
    out = cloud.run(*RESUME, *JOB)
    assert out.returncode == 0, out.stderr
    assert kinds(cloud.calls()) == ["stop", "start"]


def test_a_worker_that_does_not_answer_is_waited_for(cloud):
    cloud.answer("describe", "READY\n")
    some = lines(*["done code=0 seconds=9"] * (HOSTS - 1))  # one line is missing
    cloud.answer(
        "job.sh status", some, ["", "ssh: timeout", 255], everywhere("done code=0 seconds=9")
    )
    out = cloud.run(*RESUME, *JOB)
    assert out.returncode == 0, out.stderr
    assert kinds(cloud.calls()) == []


def test_quick_failures_end_the_loop(cloud):
    cloud.answer("describe", "READY\n")
    failed = lines("failed code=1 seconds=5", *["running pid=1 seconds=5"] * (HOSTS - 1))
    cloud.answer("job.sh status", failed)
    out = cloud.run(*RESUME, "--max-failures", "2", *JOB)
    assert out.returncode == 2
    assert "job train failed 2 times within 600 s of its start; tpu_setup/tpu log" in out.stderr
    assert kinds(cloud.calls()) == ["stop", "start"]


def test_slow_failures_do_not_count(cloud):
    cloud.answer("describe", "READY\n")
    failed = everywhere("failed code=1 seconds=6000")
    cloud.answer("job.sh status", *[failed] * 4, everywhere("done code=0 seconds=1"))
    out = cloud.run(*RESUME, "--max-failures", "2", *JOB)
    assert out.returncode == 0, out.stderr
    assert kinds(cloud.calls()) == ["stop", "start"] * 4


def test_creation_is_tried_again(cloud):
    absent = ["", "NOT_FOUND", 1]
    cloud.answer("describe", absent, absent, "READY\n")
    cloud.answer(" create ", ["", "no more capacity in the zone", 1], "")
    cloud.answer("job.sh status", everywhere("done code=0 seconds=9"))
    out = cloud.run(*RESUME, *JOB)
    assert out.returncode == 0, out.stderr
    assert "has no free v5litepod-16 now" in out.stderr and "next try in 0 s" in out.stderr
    assert kinds(cloud.calls()) == ["create", "create", "install", "check"]


def test_a_job_stopped_by_hand_stays_stopped(cloud):
    cloud.answer("describe", "READY\n")
    stopped = everywhere("stopped code=0 seconds=9")
    # Stopped before: the call goes on with it. Stopped while it runs: the call ends.
    cloud.answer("job.sh status", stopped, everywhere("running pid=1 seconds=1"), stopped)
    out = cloud.run(*RESUME, *JOB)
    assert out.returncode == 2 and "was stopped by tpu_setup/tpu kill" in out.stderr
    assert kinds(cloud.calls()) == ["stop", "start"]
