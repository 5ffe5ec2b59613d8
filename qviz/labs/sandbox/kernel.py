"""What the layers ask of the kernel: the C library, raw system calls, and their numbers."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

LINUX = sys.platform.startswith("linux")
libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SPECIAL = {
    "x86_64": {"clone": 56, "clone3": 435, "prlimit64": 302, "capset": 126},
    "aarch64": {"clone": 220, "clone3": 435, "prlimit64": 261, "capset": 91},
}
"""Calls that are allowed with some arguments, or that the layers make themselves."""

FORBIDDEN = {
    "x86_64": {
        "new processes": (57, 58, 59, 322),
        "sockets": (41, 42, 49, 50, 43, 288),
        "other processes": (101, 310, 311, 312, 256, 279, 440, 448),
        "signals": (62, 200, 234, 129, 297, 434, 424, 438),
        "namespaces and mounts": (272, 308, 165, 166, 155, 161, 428, 429, 430, 432, 442),
        "kernel surfaces": (321, 298, 323, 425, 426, 427, 250, 248, 249, 303, 304, 175, 313, 176, 246, 135),
        "memory that no limit counts": (319, 447, 29, 30, 68, 64, 240),
        "limits, priorities, clocks": (160, 141, 142, 144, 314, 203, 251, 179, 163, 164, 227, 159),
        "machine": (167, 169, 170, 300, 294, 253),
    },
    "aarch64": {
        "new processes": (221, 281),
        "sockets": (198, 203, 200, 201, 202, 242),
        "other processes": (117, 270, 271, 272, 238, 239, 440, 448),
        "signals": (129, 130, 131, 138, 240, 434, 424, 438),
        "namespaces and mounts": (97, 268, 40, 39, 41, 51, 428, 429, 430, 432, 442),
        "kernel surfaces": (280, 241, 282, 425, 426, 427, 219, 217, 218, 264, 265, 105, 273, 106, 104, 92),
        "memory that no limit counts": (279, 447, 194, 196, 186, 190, 180),
        "limits, priorities, clocks": (164, 140, 118, 119, 274, 122, 30, 60, 89, 170, 112, 171),
        "machine": (224, 142, 161, 262, 26),
    },
}
"""Numbers of the system calls that a student's code is refused, by machine and what they are for."""


def machine() -> str:
    """Return the name of the processor's architecture."""
    return platform.machine()


def call(number: int, *args: object) -> int:
    """Make a system call and return its result, or the negative error number."""
    result = libc.syscall(ctypes.c_long(number), *args)
    return result if result >= 0 else -ctypes.get_errno()


def prctl(option: int, *args: int) -> int:
    """Set an attribute of this process and return 0, or the negative error number."""
    padded = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)[:4]]
    return 0 if libc.prctl(ctypes.c_int(option), *padded) >= 0 else -ctypes.get_errno()


def reason(error: int) -> str:
    """Return the words of an error number, given positive or negative."""
    return os.strerror(abs(error))


def status(key: str) -> int:
    """Return a size in bytes from this process's status, such as "VmSize"."""
    for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the status of a process has no {key!r}")
