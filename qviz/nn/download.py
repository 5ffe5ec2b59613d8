"""Download: files from the web that resume, are hashed, and appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

_BLOCK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 3


class _Cut(Exception):
    """The connection ended before the file did; what came is kept."""


def cache_dir() -> Path:
    """Return the folder for data and weights: the environment variable QVIZ_DATA, else ``~/.cache/qviz``."""
    return Path(os.environ.get("QVIZ_DATA") or "~/.cache/qviz").expanduser()


def file_sha256(path: str | Path) -> str:
    """Return a file's sha256 as 64 hexadecimal digits, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, folder: str | Path, sha256: str, *, progress: bool = True) -> Path:
    """Return the file that ``url`` names, in ``folder``; download it where it is not there yet.

    Bytes go to ``NAME.part`` first. A cut connection is tried again from where it ended, here up to three
    times and by the next call after that. Only a file with the right hash gets its name, in one move; a file
    of that name with another hash is replaced. Processes that ask for the same file wait for each other
    (not on Windows, where only one should ask).

    Args:
        url: http or https.
        folder: made if missing.
        sha256: 64 hexadecimal digits, or their first 8 or more, as the names of torchvision's files carry
            them.
        progress: show a bar (if tqdm is installed).

    Raises:
        ValueError: the URL or ``sha256`` is malformed; or the file's hash is not ``sha256``, then nothing
            is kept.
        ConnectionError: the server cannot be reached, answers with an error, or stops before the end.
        OSError: the file cannot be written.
    """
    wanted = check_digits(sha256)
    target = Path(folder) / _name(url)
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if target.is_file() and file_sha256(target).startswith(wanted):
            return target
        # a process that ended between the last byte and the move left the whole file here
        if not (part.is_file() and file_sha256(part).startswith(wanted)):
            _download(url, part, wanted, progress)
        part.replace(target)
    return target


def check_digits(sha256: str) -> str:
    """Return the digits in lower case.

    Raises:
        ValueError: they are not 8 to 64 hexadecimal digits.
    """
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, or the first 8 or more, got {sha256!r}.")
    return sha256.lower()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs, and wait while another process holds it; then remove it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    while True:
        handle = path.open("w")
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                break
        handle.close()  # the one who had it has removed this file: another waits on a new one
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()


def _name(url: str) -> str:
    parts = urlsplit(url)
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc or name in ("", ".."):
        raise ValueError(f"url must be http(s)://host/…/file, got {url!r}.")
    return name


def _download(url: str, part: Path, wanted: str, progress: bool) -> None:
    cut: _Cut | None = None
    for _ in range(_ATTEMPTS):
        resumed = part.is_file() and part.stat().st_size > 0
        try:
            _pull(url, part, progress)
        except _Cut as error:
            cut = error
            continue
        found = file_sha256(part)
        if found.startswith(wanted):
            return
        part.unlink()
        if not resumed:  # else the old beginning may be to blame: once more from the start
            raise ValueError(f"{url} has sha256 {found}, expected {wanted}; nothing was kept.")
    raise ConnectionError(
        f"{url} stopped early ({cut}); what came is kept, and the next call goes on from there."
    )


def _pull(url: str, part: Path, progress: bool) -> None:
    """Add to ``part`` what it lacks, or start it anew where the server does not serve ranges."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "qviz", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # longer than the file: not its beginning
                part.unlink()
                raise _Cut("the server refused to resume") from None
            raise ConnectionError(f"{url} answered HTTP {error.code} ({error.reason}).") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"{url} cannot be reached ({reason}); are you offline?") from None
    with response:
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        ):
            part.unlink(missing_ok=True)
            raise _Cut("the server resumed at a wrong place")
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with _bar(part.stem, have, total, progress) as advance:
            size = _copy(response, part, have, advance)
    if total is not None and size < total:
        raise _Cut(f"{size:,} of {total:,} bytes came")


def _copy(response: http.client.HTTPResponse, part: Path, have: int, advance: Callable[[int], object]) -> int:
    with part.open("ab" if have else "wb") as file:
        while True:
            try:
                block = response.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(f"{file.tell():,} bytes came, then: {error}") from None
            if not block:
                return file.tell()
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror} (while downloading)", str(part)) from error
            advance(len(block))


@contextmanager
def _bar(name: str, have: int, total: int | None, progress: bool) -> Iterator[Callable[[int], object]]:
    try:
        from tqdm import tqdm
    except ImportError:
        progress = False
    if not progress:
        yield lambda count: None
        return
    with tqdm(desc=name, initial=have, total=total, unit="B", unit_scale=True, unit_divisor=1024) as bar:
        yield bar.update
