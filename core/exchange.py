"""Two paths that trade places in one step, so that no reader finds nothing in between, where the system can do that."""

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
_SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_UNABLE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
"""What kernels and file systems say that do not know how."""


def exchange(one: Path, other: Path) -> bool:
    """Let two paths of one file system trade places atomically; False where the system cannot.

    Raises:
        FileNotFoundError: one of them is not there.
        OSError: they may not be moved.
    """
    if (rename := _rename()) is None:
        return False
    if rename(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    if (error := ctypes.get_errno()) in _UNABLE:
        return False
    raise OSError(error, os.strerror(error), str(one), None, str(other))


@cache
def _rename() -> Any:
    """The C library's function of two paths as bytes, if it has one."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            return lambda one, other: library.renamex_np(one, other, _SWAP)
        library.renameat2  # noqa: B018  # older C libraries lack it
        return lambda one, other: library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _SWAP)
    except AttributeError:
        return None
