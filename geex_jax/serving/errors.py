"""What a request is refused with: a status and OpenAI's error object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from geex_jax.errors import GeexError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "server_error",
}


class ApiError(Exception):
    """An answer that says no.

    Args:
      status: of HTTP.
      message: for people, one line.
      param: the field of the body that is wrong, such as "stream_options.include_usage".
      code: for programs, such as "context_length_exceeded".
      headers: more headers, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code = param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The object that OpenAI's clients read."""
        kind = TYPES.get(self.status, "invalid_request_error")
        about = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": about}

    def encoded(self) -> bytes:
        """`body()` as JSON."""
        return json.dumps(self.body(), ensure_ascii=False).encode("utf-8", "replace")


def refused(error: GeexError, param: str | None = None) -> ApiError:
    """A user's mistake that the library found, as a 400."""
    return ApiError(400, str(error), param=param)


def overloaded(message: str, seconds: int = 1) -> ApiError:
    """The queue is full: come again after `seconds`."""
    return ApiError(429, message, code="queue_full", headers={"Retry-After": str(seconds)})


def stopping() -> ApiError:
    """The server is on its way down, or its engine has stopped."""
    return ApiError(
        503,
        "the server takes no more requests: it is shutting down, or its engine has failed",
        code="draining",
        headers={"Retry-After": "30", "Connection": "close"},
    )
