"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import IO


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on the disk, where the system can say so."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no such call
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it
            os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Replace a file in one go: either the old content is there or the new one, whatever happens.

    Raises:
        OSError: it could not be written; the old content stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
    except BaseException as problem:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(problem, OSError):
            raise OSError(
                problem.errno, f"{path} could not be written: {problem.strerror}; what was there before stays"
            ) from problem
        raise
    sync_folder(path.parent)


def sha256(content: bytes) -> str:
    """Return the hash as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def lock(path: Path) -> IO[bytes] | None:
    """Hold a file locked until it is closed or the process ends, however it ends.

    Returns:
        the open file; None where the system or the file system has no locks.

    Raises:
        OSError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        file.close()
        if isinstance(problem, BlockingIOError):
            raise OSError(problem.errno, f"another run is at work in {path.parent}") from problem
        return None
    return file
