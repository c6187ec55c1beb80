"""`jax.distributed` start-up that says who is missing, and small agreements between processes.

jax itself ends a process by an abort when a peer does not come (no exception, no name, a C++
stack). So the processes meet once on the coordinator's own port before jax opens it: every one
calls process 0, which answers "go" when all have called, or tells all of them who has not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from geex_jax.errors import GeexError

T = TypeVar("T")
TIMEOUT = 300.0  # seconds
_HELLO = "geex-start"
_RETRY = 0.5  # seconds between calls of a process 0 that does not listen yet
_LINE = 5.0  # seconds for one line on an open connection


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: float = TIMEOUT,
) -> bool:
    """Joins the processes of one run; call it before jax touches a device.

    Args:
      coordinator: "HOST:PORT" of process 0, or "auto" for what jax finds by itself (Cloud TPU
        slices, SLURM, Kubernetes); default $GEEX_COORDINATOR, else a TPU slice of several hosts
        is found by $TPU_WORKER_HOSTNAMES, else the run has one process.
      processes: how many there are; default $GEEX_PROCESSES.
      process: which one this is, from 0; default $GEEX_PROCESS.
      timeout: seconds for all to come; default of the command `geex train`: $GEEX_START_TIMEOUT.

    Returns:
      Whether there are several processes.

    Raises:
      GeexError: part of the settings is missing or wrong, or after `timeout` the coordinator
        could not be reached or a process had not come; names address, port and process.
    """
    coordinator = coordinator or os.environ.get("GEEX_COORDINATOR") or _slice_of_hosts()
    processes = _number("processes", processes, "GEEX_PROCESSES")
    process = _number("process", process, "GEEX_PROCESS")
    if not coordinator:
        if processes is not None or process is not None:
            raise GeexError("processes without a coordinator", "give --coordinator HOST:PORT")
        return False
    if coordinator == "auto":
        coordinator, processes, process = _detect(timeout)
    if processes is None or process is None:
        raise GeexError(
            f"--coordinator {coordinator} without --processes and --process",
            "say how many processes there are and which one this is",
        )
    if not 0 <= process < processes:
        raise GeexError(f"--process {process} of {processes}", "processes are counted from 0")
    if processes == 1:
        return False
    host, port = _address(coordinator)
    if process == 0:
        _call_roll(host, port, processes, timeout)
    else:
        _answer_roll(host, port, processes, process, timeout)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        initialization_timeout=max(30, int(timeout)),
        cluster_detection_method="deactivate",
    )
    return True


def _slice_of_hosts() -> str:
    several = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "auto" if several or os.environ.get("MEGASCALE_COORDINATOR_ADDRESS") else ""


def _number(name: str, value: int | None, variable: str) -> int | None:
    if value is None and (text := os.environ.get(variable)):
        if not text.isdigit():
            raise GeexError(f"${variable}={text} is not a number", f"or give --{name}")
        return int(text)
    return value


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise GeexError(f"coordinator {coordinator!r}", "write HOST:PORT, such as 10.0.0.2:8476")
    return host.strip("[]"), int(port)


def _detect(timeout: float) -> tuple[str, int, int]:
    from jax._src.clusters import ClusterEnv  # no public way to ask without connecting

    try:
        coordinator, processes, process, _ = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, int(timeout)
        )
    except Exception as error:
        raise GeexError(
            f"jax cannot tell this cluster's coordinator ({type(error).__name__}: {error})",
            "give --coordinator HOST:PORT --processes N --process I",
        ) from error
    if coordinator is None or processes is None or process is None:
        raise GeexError(
            "jax finds no cluster here (Cloud TPU slice, SLURM, Kubernetes)",
            "give --coordinator HOST:PORT --processes N --process I",
        )
    return coordinator, processes, process


def _call_roll(host: str, port: int, processes: int, timeout: float) -> None:
    """Process 0: waits until all others have called, then lets them go."""
    end = time.monotonic() + timeout
    lines: dict[int, socket.socket] = {}
    with _listener(host, port) as server, contextlib.ExitStack() as stack:
        while len(lines) < processes - 1 and (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                line, peer = server.accept()
            except TimeoutError:
                break
            stack.enter_context(line)
            caller = _caller(line, peer[0], processes, lines)
            if isinstance(caller, str):
                for other in (line, *lines.values()):
                    _say(other, f"no {caller}")
                raise GeexError(caller, "start each process with its own --process")
            if caller:
                lines[caller] = line
        missing = sorted(set(range(1, processes)) - set(lines))
        for line in lines.values():
            _say(line, f"no {_missing(missing, processes, timeout)}" if missing else "go")
        if missing:
            raise GeexError(
                f"{_missing(missing, processes, timeout)} (they were awaited at port {port})",
                f"see their output; {_firewall(port)}",
            )


@contextlib.contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        server = socket.create_server(
            ("", port), family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=4096
        )
    except OSError as error:
        raise GeexError(
            f"process 0 cannot listen at port {port} of {host} ({error.strerror})",
            "end what uses the port, or choose another one in --coordinator",
        ) from None
    with server:
        yield server


def _caller(line: socket.socket, peer: str, processes: int, known: Any) -> int | str:
    """Who calls: a process's number, 0 for a stranger, a text for what cannot be."""
    words = _hear(line).split()
    if len(words) != 4 or words[0] != _HELLO or not words[1].isdigit() or not words[2].isdigit():
        return 0  # a port scanner, a health check
    number, count = int(words[1]), int(words[2])
    if count != processes:
        return f"process {number} ({words[3]}, {peer}) counts {count} processes, 0 {processes}"
    if number in known:
        return f"process {number} was started twice, the second time on {words[3]} ({peer})"
    return number


def _answer_roll(host: str, port: int, processes: int, process: int, timeout: float) -> None:
    """Processes from 1 on: call process 0 and wait for its word."""
    end = time.monotonic() + timeout
    who = f"process {process} of {processes}"
    reason = ""
    while (left := end - time.monotonic()) > 0:
        try:
            line = socket.create_connection((host, port), timeout=left)
        except socket.gaierror as error:
            raise GeexError(
                f"{who}: the coordinator's name {host} is not known ({error.strerror})",
                "give the address of process 0's host",
            ) from None
        except OSError as error:
            reason = error.strerror or "no answer"
            time.sleep(min(_RETRY, max(end - time.monotonic(), 0)))
            continue
        with line:
            _say(line, f"{_HELLO} {process} {processes} {socket.gethostname()}")
            # Process 0 waits for the others as long as this one does; then it says who is missing.
            line.settimeout(max(end - time.monotonic(), 0) + _LINE + timeout)
            answer = _hear(line)
        if answer == "go":
            return
        if answer.startswith("no "):
            raise GeexError(f"{who}: {answer[3:]}", "see the output of process 0")
        reason = "it ended the connection"  # an old run's process 0 on its way out
        time.sleep(_RETRY)
    raise GeexError(
        f"{who} cannot reach the coordinator, port {port} of {host}, within {timeout:.0f} s "
        f"({reason or 'no answer'})",
        f"process 0 must run there with the same --coordinator; {_firewall(port)}",
    )


def _say(line: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):
        line.sendall(f"{text}\n".encode())


def _hear(line: socket.socket) -> str:
    if line.gettimeout() is None:
        line.settimeout(_LINE)
    data = b""
    with contextlib.suppress(OSError):
        while not data.endswith(b"\n") and len(data) < 1000 and (more := line.recv(1000)):
            data += more
    return data.decode(errors="replace").strip()


def _missing(missing: list[int], processes: int, timeout: float) -> str:
    names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    plural = "es" if len(missing) > 1 else ""
    return f"process{plural} {names} of {processes} did not come within {timeout:.0f} s"


def _firewall(port: int) -> str:
    return (
        f"a firewall must let TCP port {port} through between the hosts (Google Cloud: gcloud "
        f"compute firewall-rules create geex --network NETWORK --allow tcp:{port} "
        "--source-tags TAG --target-tags TAG)"
    )


def agreed(check: Callable[[], T]) -> T:
    """Runs a check on every process; where it fails on one, all of them stop with one line.

    Raises:
      GeexError: the check's own, or that another process's check failed.
    """
    if jax.process_count() == 1:
        return check()
    from jax.experimental.multihost_utils import process_allgather

    mine: GeexError | None = None
    found: Any = None
    try:
        found = check()
    except GeexError as error:
        mine = error
    failed = np.flatnonzero(np.ravel(process_allgather(np.array([mine is not None]))))
    if mine is not None:
        raise mine
    if failed.size:
        raise GeexError(f"process {failed[0]} refused to start", "see its message")
    return found


def from_first(value: int) -> int:
    """The number that process 0 has, on all processes."""
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return int(broadcast_one_to_all(np.array(value, np.int32)))


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def part() -> None:
    """Lets go of the other processes, all at the same place; nothing is computed together after."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def leave(status: int) -> None:
    """Ends this process at once if there are others, without jax's farewell.

    That farewell waits minutes for processes that may hang in a collective which this one has
    left by an error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.distributed.is_initialized():
        os._exit(status)
