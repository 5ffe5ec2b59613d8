"""Files: hashes, locks, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sha256(content: bytes) -> str:
    """Return the sha256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Return a file's sha256 as 64 hexadecimal digits, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock while the block runs; it ends with the process, however that ends.

    Args:
        path: The file that is locked. It is made where it is missing, and stays: removing it would let two
            processes hold two files of one name.
        wait: Whether to wait while another process holds it.

    Raises:
        BlockingIOError: Another process holds it, and ``wait`` is False.
        OSError: The file cannot be made.
    """
    from filelock import FileLock, Timeout  # here, so that importing qviz stays light

    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout as held:
        raise BlockingIOError(f"another process holds {path}") from held
    try:
        yield
    finally:
        lock.release()


def make_folder(folder: Path, says: str) -> None:
    """Make a folder where it is missing, and see that it takes files, before work whose result goes there.

    Raises:
        OSError: It does not; the message is ``says`` and the reason.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_synced(probe, b"x")
        probe.unlink()
    except OSError as problem:
        raise OSError(problem.errno, f"{says}: {problem.strerror}") from problem


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
        OSError: The file could not be written; the old content stays, and the message names the file.
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
