"""The filter that a sandbox of ours gives the kernel: system calls by which a process gets round its bounds.

Refused is memory that no count of processes shows (memfd, System V segments, keys), a new user namespace, ways around
the filter itself (io_uring), and typing into a terminal. Everything else is allowed.
"""

from __future__ import annotations

import errno
import platform
import struct

#: By machine: the kernel's mark of it, and the numbers of its calls.
_NUMBERS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "ioctl": 16, "shmget": 29, "shmat": 30, "clone": 56, "add_key": 248, "request_key": 249, "keyctl": 250,
            "unshare": 272, "perf_event_open": 298, "memfd_create": 319, "bpf": 321, "userfaultfd": 323,
            "io_uring_setup": 425, "clone3": 435, "memfd_secret": 447,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "ioctl": 29, "unshare": 97, "shmget": 194, "shmat": 196, "add_key": 217, "request_key": 218, "keyctl": 219,
            "clone": 220, "perf_event_open": 241, "memfd_create": 279, "bpf": 280, "userfaultfd": 282,
            "io_uring_setup": 425, "clone3": 435, "memfd_secret": 447,
        },
    ),
}  # fmt: skip
#: Refused only where an argument holds these: which argument, and the bits or the values.
_NEW_USER = 0x10000000
_BY_BITS = {"clone": (0, _NEW_USER), "unshare": (0, _NEW_USER)}
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
#: The numbers of the x32 calls begin here.
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCH_AT, _ARGS_AT = 0, 4, 16


def filter_program() -> bytes:
    """Return the filter as the kernel's seccomp takes it; empty on a machine whose calls are not known here."""
    known = _NUMBERS.get(platform.machine())
    if known is None:
        return b""
    arch, numbers = known
    # A call that looks as if it did not exist is done without: glibc falls back from clone3 to clone.
    absent = _step(_RETURN, _REFUSE | errno.ENOSYS)
    denied = _step(_RETURN, _REFUSE | errno.EPERM)
    program = [_step(_LOAD, _ARCH_AT), _step(_EQUAL, arch, 1, 0), absent, _step(_LOAD, _NUMBER_AT)]
    program += [_step(_AT_LEAST, _X32, 0, 1), absent]
    for name, number in numbers.items():
        if name in _BY_BITS:
            argument, bits = _BY_BITS[name]
            program += [_step(_EQUAL, number, 0, 4), _step(_LOAD, _ARGS_AT + 8 * argument)]
            program += [_step(_BITS, bits, 0, 1), denied, _step(_RETURN, _ALLOW)]
        elif name == "ioctl":
            # The kernel looks at the lower half only, and so do we.
            program += [_step(_EQUAL, number, 0, 5), _step(_LOAD, _ARGS_AT + 8)]
            program += [_step(_EQUAL, _TIOCSTI, 1, 0), _step(_EQUAL, _TIOCLINUX, 0, 1), denied, _step(_RETURN, _ALLOW)]
        else:
            program += [_step(_EQUAL, number, 0, 1), absent]
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """Return one instruction: what to do, with what, and how many to skip."""
    return struct.pack("=HBBI", code, if_so, if_not, value)
