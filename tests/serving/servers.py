"""Servers on free loopback ports, in threads of this process."""

import contextlib
import threading
import time

import httpx

from geex_jax.serving import bind, make_app, serve, url_of


def wait_for(happened, seconds=30):
    """Returns once `happened()`; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@contextlib.contextmanager
def running(models, settings=None):
    """Serves models; gives a client whose `app` is the application."""
    app = make_app(models, settings)
    sock = bind("127.0.0.1", 0)
    ready = threading.Event()
    thread = threading.Thread(target=serve, args=(app, sock, ready.set))
    thread.start()
    try:
        assert ready.wait(60)
        with httpx.Client(base_url=url_of(sock), timeout=30) as client:
            client.app, client.port = app, sock.getsockname()[1]
            yield client
    finally:
        app.state.serving.draining = True
        thread.join(30)
        assert not thread.is_alive()
