"""How a driver is started and stopped."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..core.errors import ValueshiftError
from .scheduling import Executor


def executor_named(name: str, root: Path, workers: int, address: str) -> Executor:
    """The executor `local` or `ray`.

    Raises:
        ValueshiftError: Ray is not installed, or there is no cluster.
    """
    if name == "local":
        from .local import LocalExecutor

        return LocalExecutor(root, workers)
    try:
        from .ray_executor import RayExecutor
    except ModuleNotFoundError as error:
        raise ValueshiftError("the executor ray needs Ray: pip install 'valueshift[ray]'") from error
    return RayExecutor(root, address)


@contextmanager
def interruptible() -> Iterator[None]:
    """While active, what schedulers and terminals send to end a process ends it as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    wanted = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN
    ]  # nohup
    before = [signal.signal(number, interrupt) for number in wanted]
    try:
        yield
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)
