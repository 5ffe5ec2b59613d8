"""The layers around a student's code, and in words which of them are active.

Namespaces are a convenience that some machines refuse. Landlock protects files; seccomp forbids new
processes, sockets and signals; limits of memory are relative to what the process has at its start, so that
they fit every build of torch.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import kernel, seccomp
from .landlock import abi, restrict

LAYERS = ("namespaces", "landlock", "seccomp")
SPACES = {
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "mount": 0x20000,
    "ipc": 0x8000000,
    "uts": 0x4000000,
}
INODES = 500
OPEN_FILES = 64
_NOBODY = 65534
_TMPFS_FLAGS = 2 | 4 | 8  # no set-user-id, no devices, no programs


def landlock() -> int:
    """Return the version of Landlock here, 0 if there is none: then nothing protects the grader's files."""
    return abi()


def available() -> dict[str, Any]:
    """Return the layers of this machine: whether namespaces are allowed, Landlock's version, seccomp."""
    return {"namespaces": _may_unshare(), "landlock": landlock(), "seccomp": seccomp.available()}


def hide() -> None:
    """Keep other processes of the same user from reading this one's memory and environment."""
    if kernel.LINUX:
        kernel.prctl(4, 0)


def namespaces(folder: Path, megabytes: int) -> tuple[str, bool]:
    """Move this process's children into namespaces of their own, and put a small file system on ``folder``.

    Returns:
        The words for it, and whether the file system is there.
    """
    if not kernel.LINUX:
        return "no namespaces (not Linux)", False
    uid, gid = os.getuid(), os.getgid()
    if kernel.libc.unshare(ctypes.c_int(sum(SPACES.values()))):
        return f"no namespaces ({kernel.reason(ctypes.get_errno())})", False
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{_NOBODY} {uid} 1"),
        ("gid_map", f"{_NOBODY} {gid} 1"),
    ):
        try:
            Path(f"/proc/self/{name}").write_text(text, "utf-8")
        except OSError as error:
            return f"namespaces without {name} ({error.strerror})", False
    options = f"size={megabytes}m,nr_inodes={INODES},mode=700".encode()
    failed = kernel.libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(_TMPFS_FLAGS), options)
    words = ",".join(SPACES)
    if failed:
        return f"{words} without tmpfs ({kernel.reason(ctypes.get_errno())})", False
    return f"{words}+tmpfs", True


def leave(folder: Path) -> None:
    """Take the small file system off ``folder``; all in it is gone."""
    kernel.libc.umount2(os.fsencode(folder), ctypes.c_int(2))


def limit(limits: dict[str, Any]) -> None:
    """Bound the time, memory, file size and open files of this process."""
    import resource

    extra = limits["memory_mb"] << 20
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["disk_mb"] << 20,
        resource.RLIMIT_NOFILE: OPEN_FILES,
    }
    if kernel.LINUX:
        bounds[resource.RLIMIT_AS] = kernel.status("VmSize") + extra
        bounds[resource.RLIMIT_DATA] = kernel.status("VmData") + extra
    for what, bound in bounds.items():
        resource.setrlimit(what, (bound, bound))


def drop_capabilities() -> None:
    """Give up every privilege of root, for good."""
    if not kernel.LINUX:
        return
    for capability in range(64):
        kernel.prctl(24, capability)
    header, data = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    special = kernel.SPECIAL.get(kernel.machine())
    if special:
        kernel.call(special["capset"], ctypes.c_char_p(header), ctypes.c_char_p(data))


def enclose(layers: tuple[str, ...], reads: list[Path], lists: list[Path], folder: Path, *, own: bool) -> str:
    """Put Landlock and seccomp around this process, and return the words for what is active.

    Args:
        layers: Those of ``LAYERS`` that are wanted.
        reads: What may be read, as for :func:`landlock.restrict`.
        lists: What may be listed.
        folder: The one folder that may be written.
        own: Whether the folder is a small file system of its own. On a shared disk no folder may be made and
            nothing removed, so that what was written there can be counted and deleted.
    """
    devices = [Path("/dev/null")]
    files, calls = "no landlock (switched off)", "no seccomp (switched off)"
    if "landlock" in layers:
        files = restrict(reads, lists, folder, tree=own, sinks=devices)
    drop_capabilities()
    if "seccomp" in layers:
        calls = seccomp.restrict()
    return f"{files}; {calls}"


def _may_unshare() -> bool:
    """Try in a process of its own: a process with threads cannot enter a user namespace."""
    if not kernel.LINUX:
        return False
    code = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({sum(SPACES.values())}) != 0)"
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 0
