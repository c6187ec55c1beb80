"""Processes that meet, or say who is missing: sockets on loopback, jax is not started."""

import contextlib
import socket
import threading
import time

import pytest

from geex_jax.errors import GeexError
from geex_jax.parallel import startup


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("GEEX_COORDINATOR", "GEEX_PROCESSES", "GEEX_PROCESS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)


def meet(port, numbers, processes, timeout, counts=None):
    """Lets processes call each other, in threads; number to "go" or what it was told."""
    out = {}

    def one(place, number):
        count = (counts or {}).get(number, processes)
        try:
            if number == 0:
                startup._call_roll("127.0.0.1", port, count, timeout)
            else:
                startup._answer_roll("127.0.0.1", port, count, number, timeout)
            out[place] = "go"
        except GeexError as error:
            out[place] = str(error)

    threads = [threading.Thread(target=one, args=x) for x in enumerate(numbers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return out


def test_all_go_when_all_have_come_in_any_order(port):
    assert meet(port, [3, 1, 0, 2], 4, 30) == dict.fromkeys(range(4), "go")


def test_a_closed_port_is_one_line_with_address_port_and_firewall_rule(port):
    began = time.monotonic()
    with pytest.raises(GeexError) as error:
        startup.initialize(f"127.0.0.1:{port}", 4, 2, timeout=1)
    said = str(error.value)
    assert "\n" not in said and time.monotonic() - began < 30
    assert f"process 2 of 4 cannot reach the coordinator, port {port} of 127.0.0.1" in said
    assert "within 1 s (Connection refused)" in said
    assert f"firewall-rules create geex --network NETWORK --allow tcp:{port}" in said


def test_the_missing_process_is_named_to_all(port):
    said = meet(port, [0, 1, 3], 5, 2)
    for text in said.values():
        assert "processes 2, 4 of 5 did not come within 2 s" in text
    assert f"awaited at port {port}" in said[0] and f"tcp:{port}" in said[0]


def test_a_process_that_was_started_twice_or_counts_otherwise(port):
    said = meet(port, [0, 1, 1], 3, 20)
    assert all("process 1 was started twice" in text for text in said.values())
    said = meet(port, [0, 1], 3, 20, {1: 2})
    assert all("counts 2 processes, 0 3" in text for text in said.values())


def test_strangers_at_the_port_do_not_matter(port):
    def knock():
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(b"GET / HTTP/1.1\r\n\r\n")
                return
            time.sleep(0.02)

    thread = threading.Thread(target=knock)
    thread.start()
    assert meet(port, [0, 1], 2, 30) == {0: "go", 1: "go"}
    thread.join()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("here", 2, 0), "coordinator 'here'; write HOST:PORT"),
        (("here:0", 2, 0), "write HOST:PORT"),
        (("here:80", None, None), "without --processes and --process"),
        (("here:80", 2, 2), "--process 2 of 2; processes are counted from 0"),
        ((None, 2, 0), "processes without a coordinator"),
    ],
)
def test_settings_that_do_not_fit(words, message):
    with pytest.raises(GeexError, match=message):
        startup.initialize(*words, timeout=1)


def test_settings_from_the_environment(port, monkeypatch):
    assert startup.initialize() is False
    monkeypatch.setenv("GEEX_COORDINATOR", f"127.0.0.1:{port}")
    monkeypatch.setenv("GEEX_PROCESSES", "3")
    monkeypatch.setenv("GEEX_PROCESS", "x")
    with pytest.raises(GeexError, match=r"\$GEEX_PROCESS=x is not a number"):
        startup.initialize()
    monkeypatch.setenv("GEEX_PROCESS", "1")
    with pytest.raises(GeexError, match=f"process 1 of 3 cannot reach .* port {port}"):
        startup.initialize(timeout=0.5)


def test_a_port_that_is_taken_is_one_line(port):
    with socket.create_server(("", port)), pytest.raises(GeexError, match=f"listen at port {port}"):
        startup.initialize(f"127.0.0.1:{port}", 2, 0, timeout=1)


def test_a_name_nobody_knows_is_said_at_once(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(GeexError, match="name of-nobody is not known"):
        startup.initialize("of-nobody:8476", 2, 1, timeout=30)
