"""A registry on this machine's loopback, which can be told to misbehave."""

import http.server
import threading


class Registry:
    """Serves `files` (path to bytes); counts and bends requests.

    cut: number of answers that end after half of their bytes.
    ranges: whether it can resume.
    """

    def __init__(self):
        self.files, self.cut, self.ranges, self.asked = {}, 0, True, []
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                registry.answer(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/"

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted))
        data = self.files.get(handler.path.lstrip("/"))
        if data is None:
            handler.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if begin >= len(data) > 0:
            handler.send_error(416)
            return
        rest = data[begin:]
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        if self.cut:
            self.cut -= 1
            rest = rest[: len(rest) // 2]
            handler.close_connection = True
        handler.wfile.write(rest)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
