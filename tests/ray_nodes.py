"""Machines of a Ray cluster on loopback, for tests that kill one."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

RAY = pathlib.Path(sys.executable).parent / "ray"


def free_port(address):
    with socket.create_server((address, 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def environment(**more):
    """The variables of a cluster's processes, with a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:  # paths of sockets must be short
        yield {
            **os.environ,
            "RAY_TMPDIR": folder,
            # Ray's server for clients forks while its threads run, and on a busy machine the child
            # now and then dies at once: found out soon, it is asked again (`connect`).
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "10",
            **more,
        }


@contextlib.contextmanager
def node(variables, address, *flags):
    """One machine of the cluster: a process group of its own, so that it can be killed whole.

    Ray replaces 127.0.0.1 by the address of the machine; others of the loopback range stay.
    """
    command = [
        str(RAY), "start", "--block", "--num-cpus=1", f"--node-ip-address={address}",
        "--object-store-memory=80000000", "--disable-usage-stats",
        # Free ports for all of it: the usual ones may be taken on a machine with other work.
        "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", *flags,
    ]  # fmt: skip
    path = pathlib.Path(variables["RAY_TMPDIR"], f"{address}.txt")
    with (
        open(path, "wb") as log,
        subprocess.Popen(
            command, env=variables, start_new_session=True, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def two_nodes(variables, head, other):
    """A cluster of two machines. Gives its address and the second machine's process."""
    port, client = free_port(head), free_port(head)
    flags = ["--head", f"--port={port}", f"--ray-client-server-port={client}",
             "--include-dashboard=false"]  # fmt: skip
    with (
        node(variables, head, *flags),
        node(variables, other, f"--address={head}:{port}") as second,
    ):
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection((head, client), 1):
                break
            assert time.monotonic() < deadline, printed(variables)
            time.sleep(0.2)
        yield f"ray://{head}:{client}", second


def wait_for_cores(variables, count):
    """Waits until a cluster that this process is connected to has so many cores."""
    import ray

    deadline = time.monotonic() + 120
    while ray.cluster_resources().get("CPU", 0) < count:
        assert time.monotonic() < deadline, printed(variables)
        time.sleep(0.2)


def printed(variables):
    """What the machines of the cluster printed."""
    folder = pathlib.Path(variables["RAY_TMPDIR"])
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.txt")))
