"""Landlock: which files a process may read or write from now on. It needs no privilege and binds root too."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from . import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE, _READ, _LIST, _REMOVE_DIR, _REMOVE_FILE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_FILE, _TRUNCATE = 1 << 7, 1 << 8, 1 << 14
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE


def abi() -> int:
    """Return the version of the kernel's Landlock, or 0 where there is none."""
    if not kernel.LINUX:
        return 0
    return max(0, kernel.call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def restrict(
    reads: Iterable[Path],
    lists: Iterable[Path],
    folder: Path | None,
    *,
    tree: bool,
    sinks: Iterable[Path] = (),
) -> str:
    """Refuse this process and its children every file but those named, and all network and signals to others.

    Args:
        reads: Files, and folders with all they hold, that may be read.
        lists: Folders whose names may be listed, which does not let the files be read.
        folder: The one folder in which files may be written.
        tree: Whether folders may be made and files removed there.
        sinks: Files that may be written, such as the null device.

    Returns:
        "landlock 7" with the version in force, or "no landlock (why)".
    """
    version = abi()
    if not version:
        return "no landlock (not in this kernel)"
    rights = (1 << 13) - 1
    rights |= sum(1 << bit for bit, since in ((13, 2), (14, 3), (15, 5)) if version >= since)
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("<QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)[:size]
    rules = kernel.call(_CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if rules < 0:
        return f"no landlock ({kernel.reason(rules)})"
    for path in reads:
        _allow(rules, path, rights & (_READ | _LIST))
    for path in lists:
        _allow(rules, path, rights & _LIST)
    for path in sinks:
        _allow(rules, path, rights & (_READ | _WRITE | _TRUNCATE))
    if folder is not None:
        write = _READ | _LIST | _WRITE | _MAKE_FILE | _TRUNCATE
        _allow(rules, folder, rights & (write | (_MAKE_DIR | _REMOVE_DIR | _REMOVE_FILE if tree else 0)))
    kernel.prctl(38, 1)
    failed = kernel.call(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)
    return f"no landlock ({kernel.reason(failed)})" if failed else f"landlock {version}"


def _allow(rules: int, path: Path, rights: int) -> None:
    """Add a rule; a path that is not there needs none."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if path.is_dir() else rights & _OF_FILES
        rule = ctypes.c_char_p(struct.pack("<Qi", allowed, handle))
        kernel.call(_ADD, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0))
    finally:
        os.close(handle)
