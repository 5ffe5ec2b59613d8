"""Download: files from the web, by pooch, that are hashed and appear whole or not at all."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from qviz.core._files import file_sha256, locked

_TIMEOUT = 30.0  # seconds without a byte
_HEADERS = {"User-Agent": "qviz", "Accept-Encoding": "identity"}  # the hash is of the file as it is stored


def cache_dir() -> Path:
    """Return the folder for data and weights: the environment variable QVIZ_DATA, else ``~/.cache/qviz``."""
    return Path(os.environ.get("QVIZ_DATA") or "~/.cache/qviz").expanduser()


def fetch(url: str, folder: str | Path, sha256: str, *, progress: bool = True) -> Path:
    """Return the file that ``url`` names, in ``folder``; download it where it is not there yet.

    Bytes go to ``NAME.part`` first, and only a file with the right hash gets its name, in one move; a file of
    that name with another hash is replaced. A download that was cut starts from its beginning the next time.
    Processes that ask for the same file wait for each other.

    Args:
        url: The address, http or https.
        folder: Where the file goes. It is made where it is missing.
        sha256: 64 hexadecimal digits, or their first 8 or more, as the names of torchvision's files carry
            them.
        progress: Whether to show a bar (if tqdm is installed).

    Raises:
        ValueError: The URL or ``sha256`` is malformed; or the file's hash is not ``sha256``, and nothing is
            kept.
        ConnectionError: The server cannot be reached, answers with an error, or stops before the end.
        ImportError: Pooch is not installed.
        OSError: The file cannot be written.
    """
    wanted = check_digits(sha256)
    target = Path(folder) / _name(url)
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if target.is_file() and file_sha256(target).startswith(wanted):
            return target
        try:
            _pull(url, part, progress and find_spec("tqdm") is not None)
            if not (found := file_sha256(part)).startswith(wanted):
                raise ValueError(f"{url} has sha256 {found}, expected {wanted}; nothing was kept.")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def check_digits(sha256: str) -> str:
    """Return the digits in lower case.

    Raises:
        ValueError: They are not 8 to 64 hexadecimal digits.
    """
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, or the first 8 or more, got {sha256!r}.")
    return sha256.lower()


def _name(url: str) -> str:
    parts = urlsplit(url)
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc or name in ("", ".."):
        raise ValueError(f"url must be http(s)://host/…/file, got {url!r}.")
    return name


def _pull(url: str, part: Path, progress: bool) -> None:
    try:
        from pooch import HTTPDownloader
        from requests import HTTPError, RequestException
    except ImportError as problem:
        raise ImportError("downloads need pooch: pip install 'qviz-quantization[train]'") from problem
    download = HTTPDownloader(progressbar=progress, timeout=_TIMEOUT, headers=_HEADERS)
    try:
        download(url, str(part), None)
    except HTTPError as error:
        answer = error.response
        raise ConnectionError(f"{url} answered HTTP {answer.status_code} ({answer.reason}).") from None
    except RequestException as error:
        started = part.is_file() and part.stat().st_size
        what = f"stopped after {started:,} bytes" if started else "cannot be reached; are you offline?"
        raise ConnectionError(f"{url} {what} ({error})") from None
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (while downloading)", str(part)) from error
