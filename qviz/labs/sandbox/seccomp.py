"""Seccomp: the system calls a process is refused from now on: new processes, sockets, signals, mounts."""

from __future__ import annotations

import ctypes
import struct

from . import kernel

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_THREAD = 0x10000
_X32 = 0x40000000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def available() -> bool:
    """Return whether the kernel has filters, and this machine's system calls are known."""
    known = kernel.LINUX and kernel.machine() in kernel.FORBIDDEN
    return known and kernel.prctl(21) == 0


def program(machine: str) -> bytes:
    """Return a machine's filter: other machines' calls kill, threads pass, what is forbidden is refused."""
    special = kernel.SPECIAL[machine]
    code = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, kernel.ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    # Its flags lie in memory, out of a filter's sight; as "unknown" the C library turns to clone.
    code += [(_EQUAL, 0, 1, special["clone3"]), (_RETURN, 0, 0, _UNKNOWN)]
    allow, refuse = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)
    argument = (_LOAD, 0, 0, _FIRST_ARGUMENT)
    code += [(_EQUAL, 0, 4, special["clone"]), argument, (_ANY_BIT, 0, 1, _THREAD), allow, refuse]
    code += [(_EQUAL, 0, 4, special["prlimit64"]), argument, (_EQUAL, 0, 1, 0), allow, refuse]
    for numbers in kernel.FORBIDDEN[machine].values():
        for number in numbers:
            code += [(_EQUAL, 0, 1, number), refuse]
    code.append(allow)
    return b"".join(struct.pack("<HBBI", *step) for step in code)


def restrict() -> str:
    """Refuse this process and its threads the forbidden calls; return "seccomp", or "no seccomp (why)"."""
    if not kernel.LINUX:
        return "no seccomp (not Linux)"
    if kernel.machine() not in kernel.FORBIDDEN:
        return f"no seccomp (the system calls of {kernel.machine()} are not known)"
    steps = program(kernel.machine())
    buffer = ctypes.create_string_buffer(steps, len(steps))
    filter_ = _Program(len(steps) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if failed := kernel.prctl(38, 1):
        return f"no seccomp ({kernel.reason(failed)})"
    if failed := kernel.prctl(22, 2, ctypes.addressof(filter_)):
        return f"no seccomp ({kernel.reason(failed)})"
    return "seccomp"
