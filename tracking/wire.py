"""HTTP as MLflow's client speaks it, with an end: each answer is bounded in time and in size, whatever a server does."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import requests

from ..core.limits import ANSWER_BYTES, CALL_SECONDS, UPLOAD_BYTES_PER_SECOND

T = TypeVar("T")

last_status: ContextVar[int | None] = ContextVar("last_status", default=None)
"""HTTP status of the last answer that this thread got within `bounded`; not all of MLflow's exceptions keep it."""


class AnswerTooLargeError(requests.RequestException):
    """An answer is larger than `ANSWER_BYTES`."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread of its own.

    Raises:
        requests.Timeout: it is not done after `seconds`; the thread is left to itself and ends with the process at the latest.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise requests.Timeout(f"no whole answer within {seconds:.0f} seconds")
    return done[0]


@contextmanager
def bounded() -> Iterator[None]:
    """Within, and in this thread alone: no answer takes longer than its timeout or is larger than `ANSWER_BYTES`.

    A timeout of requests is one between two bytes; here it is that of the whole answer, with the time that the upload of the
    body may take.
    """
    original, ours = requests.Session.send, threading.get_ident()

    def send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if threading.get_ident() != ours:
            return original(session, request, **options)
        allowed = options.get("timeout")
        seconds = allowed if isinstance(allowed, int | float) else CALL_SECONDS
        seconds += int(request.headers.get("Content-Length") or 0) / UPLOAD_BYTES_PER_SECOND
        request.register_hook("response", _reader(time.monotonic() + seconds))
        last_status.set(None)
        answer = within(seconds, lambda: original(session, request, **options))
        last_status.set(answer.status_code)
        return answer

    requests.Session.send = send  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        requests.Session.send = original  # type: ignore[method-assign]


def _reader(deadline: float) -> Callable[..., None]:
    """A hook that reads a response before requests does, which would read it all."""

    def read(response: requests.Response, **_: Any) -> None:
        content = bytearray()
        for part in response.iter_content(1 << 16):
            content += part
            if len(content) > ANSWER_BYTES:
                response.close()
                raise AnswerTooLargeError(f"an answer of more than {ANSWER_BYTES >> 20} MB")
            if time.monotonic() > deadline:
                response.close()
                raise requests.Timeout("the answer has no end")
        response._content = bytes(content)

    return read
