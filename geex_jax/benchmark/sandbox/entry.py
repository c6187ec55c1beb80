"""The process that becomes a sandbox: namespaces, root, then it serves requests.

Started by `client.Sandbox` with a socket; a message is one JSON line.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

from geex_jax.benchmark.sandbox import layers, linux


def main(descriptor: int) -> None:
    """Reads the settings, enters the namespaces, serves until the socket closes.

    Args:
      descriptor: of the socket.
    """
    os.umask(0o022)
    control = socket.socket(fileno=descriptor)
    stream = control.makefile("rb")
    settings = json.loads(stream.readline())
    if not settings["namespaces"]:
        _serve(stream, control, settings, [])
        return
    try:
        linux.unshare(linux.CLONE_NEWUSER)
        _say(control, {"event": "unshared"})
        if not stream.readline():  # the host has written the id maps
            return
        if settings["several_users"]:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        linux.unshare(layers.NAMESPACES)
    except OSError as error:
        _say(control, {"event": "refused", "why": f"{error.strerror or error}"})
        return
    pid = os.fork()
    if pid:
        stream.close()
        control.close()
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    _serve(stream, control, settings, None)


def _serve(
    stream: Any, control: socket.socket, settings: dict[str, Any], lacking: list[str] | None
) -> None:
    """Loads the language, closes the root behind it, and judges batch after batch."""
    try:
        module, _, name = settings["language"].partition(":")
        language = getattr(importlib.import_module(module), name)()
        from geex_jax.benchmark.languages.types import Limits, Program
        from geex_jax.benchmark.sandbox.jail import Jail

        if lacking is None:
            lacking = layers.build_root(
                settings["binds"], settings["work_bytes"], settings["several_users"]
            )
        if settings["packages"]:
            sys.path.append(settings["packages"])
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        jail = Jail(settings, control, lambda text: _say(control, {"event": "warn", "text": text}))
        language.start(jail)
    except BaseException as error:
        _say(control, {"event": "broken", "why": _last_line(error)})
        if settings.get("debug"):
            traceback.print_exc()
        os._exit(1)
    _say(control, {"event": "ready", "lacking": lacking})
    for line in iter(stream.readline, b""):
        request = json.loads(line)
        programs = [Program(**{**p, "options": tuple(p["options"])}) for p in request["programs"]]
        try:
            before = jail.cpu_seconds()
            for index, verdict in language.judge(jail, programs, Limits(**request["limits"])):
                _say(control, {"event": "verdict", "index": index, **vars(verdict)})
            _say(control, {"event": "done", "cpu_seconds": jail.cpu_seconds() - before})
        except BaseException as error:
            if settings.get("debug"):
                traceback.print_exc(file=sys.stderr)
            _say(control, {"event": "failed", "why": _last_line(error)})
            os._exit(1)
        jail.fresh()
    jail.close()
    os._exit(0)


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
