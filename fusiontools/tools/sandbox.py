"""Shut a process in: bubblewrap, a wrapper that somebody names, or nothing where somebody says so; and end all of it.

Inside bubblewrap there is no network, nobody beside it, no environment but what is given, nothing to write to but
bounded memory and one folder, no way to a user namespace of its own, and an end as soon as its parent ends. The kernel
refuses it the calls by which a process gets round its bounds: memory that no count of processes shows (memfd, System V
segments, keys), a new user namespace, ways around the filter itself (io_uring), and typing into a terminal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

from msgspec import Struct

from fusiontools.errors import UsageError

#: What every box shows of the machine, read only.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_KEEPER = Path(__file__).with_name("keeper.py")
#: What `/tmp` and `/dev/shm` hold inside.
DISK_BYTES, SHARED_BYTES = 64 * 2**20, 16 * 2**20
#: Where the folder is that a process may write to, and keep.
FOLDER = "/work"
#: Where the one is that it may read only.
SHOWN = "/output"
#: What a process needs of the machine, beside, that reaches the network.
_NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki", "/etc/ca-certificates"),
    "/run/systemd/resolve",
)
#: Root is nobody inside: the kernel bounds no count of processes of root's.
_NOBODY = 65534
_TRIAL_S = 30
_KEEPER_S = 5
_INNER_S = 5
INSTALL = "install bubblewrap (apt install bubblewrap, dnf install bubblewrap, pacman -S bubblewrap)"
#: What bubblewrap says, why, and what helps.
_CAUSES = (
    (
        r"setting up uid map|RTM_NEWADDR|loopback",
        "AppArmor keeps it from making user namespaces, as Ubuntu 23.10 and later do",
        "give bwrap, and bwrap only, a profile that allows them: sudo ln -s "
        "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && sudo systemctl reload apparmor",
    ),
    (
        r"No space left on device",
        "this system allows no more user namespaces",
        "raise the limit: sudo sysctl user.max_user_namespaces=10000",
    ),
    (
        r"[Nn]amespace|pivot_root|[Mm]ount",
        "a container's seccomp filter, or the system, keeps it from making namespaces",
        "start the container with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or set "
        "sudo sysctl kernel.unprivileged_userns_clone=1",
    ),
)


class Sandbox(Struct, frozen=True):
    """How processes are shut in.

    Args:
        kind: `bubblewrap`; `wrapper`, a command that somebody trusts to do so; `none`.
        prefix: the command line before what is run.
        user: whose rights a process has; None for our own.
    """

    kind: Literal["bubblewrap", "wrapper", "none"] = "none"
    prefix: tuple[str, ...] = ()
    user: int | None = None

    @property
    def boxed(self) -> bool:
        """Whether processes have namespaces of their own."""
        return self.kind == "bubblewrap"

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        folder: Path | None = None,
        shown: Path | None = None,
        at: str = FOLDER,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a command, shut in; whoever starts it ends it with `end`.

        Args:
            folder: where it begins and may write; None for a directory in memory, or, without bubblewrap, ours.
            shown: another one, of which bubblewrap shows it what is in there as `SHOWN`.
            at: where the folder is, inside of bubblewrap.
            env: its whole environment.
        """
        with contextlib.ExitStack() as stack:
            line, fds = self._line(command, folder, shown, at, stack)
            return subprocess.Popen(
                line,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=dict(env or {}),
                cwd="/" if self.boxed else folder,
                pass_fds=[*pass_fds, *fds],
                start_new_session=True,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )

    def _line(
        self, command: Sequence[str], folder: Path | None, shown: Path | None, at: str, stack: contextlib.ExitStack
    ) -> tuple[list[str], list[int]]:
        if not self.boxed:
            return [sys.executable, "-I", "-S", "-B", str(_KEEPER), *self.prefix, *command], []
        line, fds = list(self.prefix), []
        if folder is not None:
            line += ["--bind", str(folder), at]
        if shown is not None:
            line += ["--ro-bind", str(shown), SHOWN]
        if program := filter_program():
            rules = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            rules.write(program)
            rules.seek(0)
            line += ["--seccomp", str(rules.fileno())]
            fds.append(rules.fileno())
        line += ["--remount-ro", "/", "--chdir", at if folder is not None else "/tmp", "--"]  # noqa: S108
        return [*line, *command], fds

    @contextlib.contextmanager
    def lend(self) -> Iterator[Path]:
        """Make a folder that processes may write to, and take it away again."""
        with tempfile.TemporaryDirectory(prefix="fusion-", ignore_cleanup_errors=True) as name:
            if self.user is not None:
                os.chown(name, self.user, self.user)
            yield Path(name)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that a sandbox started, with all that it started."""
    if process.args and str(_KEEPER) in process.args and process.poll() is None:  # type: ignore[operator]
        with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            process.terminate()
            process.wait(_KEEPER_S)
    with contextlib.ExitStack() as stack:
        inner = _watch_children(process.pid, stack)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # The first process inside of bubblewrap is killed with its parent, and is gone when all the others are.
        for fd in inner:
            select.select([fd], [], [], _INNER_S)


def _watch_children(pid: int, stack: contextlib.ExitStack) -> list[int]:
    """Open the children of a process, each to be waited for, where the system can."""
    found = []
    with contextlib.suppress(OSError, AttributeError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            found.append(os.pidfd_open(int(child)))
            stack.callback(os.close, found[-1])
    return found


def find_sandbox(
    wrapper: str | None = None,
    *,
    unsafe: bool = False,
    network: bool = False,
    readable: Sequence[str] = (),
    trial: Sequence[str] = (),
) -> Sandbox:
    """Return the sandbox of this machine, tried out with the very flags of every later start.

    Args:
        wrapper: a command to be put before what is run, as `srt --`; bubblewrap is not looked for then.
        unsafe: whether somebody has said that it goes without one, where there is none.
        network: whether bubblewrap lets it reach the network, this machine's own services included.
        readable: what else of the machine is shown inside.
        trial: what is run to find out; `true` unless said.

    Raises:
        UsageError: there is none: why, and what to do.
    """
    tried = list(trial) or ["/bin/sh", "-c", ":"]
    if wrapper is not None:
        return _find_wrapper(wrapper, tried)
    bwrap = shutil.which("bwrap")
    said = "bubblewrap is not installed"
    remedy = INSTALL
    if bwrap is not None:
        failures = []
        for sandbox in _variants(bwrap, readable, network):
            failure = _why_not(sandbox, tried)
            if failure is None:
                return sandbox
            failures.append(failure)
        said, remedy = explain(failures[-1])
    if unsafe:
        return Sandbox()
    raise UsageError(f"{said}; {remedy}", code="no_sandbox")


def explain(failure: str) -> tuple[str, str]:
    """Return why bubblewrap does not work here, by what it said, and what helps."""
    words = " ".join(failure.split())[:200]
    for pattern, cause, remedy in _CAUSES:
        if re.search(pattern, words):
            return f"bubblewrap does not work here ({words}): {cause}", remedy
    return (
        f"bubblewrap does not work here ({words or 'it says nothing'})",
        f"see `bwrap --ro-bind / / true`, or {INSTALL} anew",
    )


def _find_wrapper(wrapper: str, trial: Sequence[str]) -> Sandbox:
    try:
        prefix = tuple(shlex.split(wrapper))
    except ValueError as error:
        raise UsageError(f"the sandbox {wrapper!r} is no command line: {error}", code="no_sandbox") from error
    if not prefix or shutil.which(prefix[0]) is None:
        raise UsageError(f"the sandbox {wrapper!r}: there is no such program; install it", code="no_sandbox")
    sandbox = Sandbox("wrapper", prefix)
    failure = _why_not(sandbox, trial, {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/")})
    if failure is not None:
        words = " ".join(failure.split())[:200] or "it says nothing"
        raise UsageError(f"the sandbox {wrapper!r} does not run a program: {words}", code="no_sandbox")
    return sandbox


def _variants(bwrap: str, readable: Sequence[str], network: bool) -> Iterator[Sandbox]:
    """Yield what this version of bubblewrap can, the strictest first."""
    usage = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False).stdout
    readable = [*readable, *(_NETWORK if network else ())]
    net = ["--share-net"] if network else []
    nobody = [*net, "--unshare-user", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    strict = [[*nobody, "--disable-userns"]] if "--disable-userns" in usage else []
    for user in (_NOBODY, None) if os.geteuid() == 0 else (None,):
        for more in (*strict, nobody):
            yield Sandbox("bubblewrap", tuple(_bubblewrap(bwrap, usage, more, readable)), user)
    # Where user namespaces are forbidden, root needs none.
    yield Sandbox("bubblewrap", tuple(_bubblewrap(bwrap, usage, net, readable)))


def _bubblewrap(bwrap: str, usage: str, more: Sequence[str], readable: Sequence[str]) -> list[str]:
    line = [bwrap, "--unshare-all", *more, "--cap-drop", "ALL", "--die-with-parent", "--new-session"]
    # Of what stands there, root may write the kernel's settings, whatever its capabilities are.
    line += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    bounded = "--size" in usage
    if bounded:
        line += ["--size", str(SHARED_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108 - inside the sandbox
    # Both are memory without a bound of their own; without one, nothing is left there to write to.
    line += ["--remount-ro", "/dev"]
    line += [*(["--size", str(DISK_BYTES)] if bounded else []), "--tmpfs", "/tmp"]  # noqa: S108
    for path in dict.fromkeys([*_SYSTEM, *readable]):
        line += ["--ro-bind-try", path, path]
    return line


def _why_not(sandbox: Sandbox, trial: Sequence[str], env: Mapping[str, str] | None = None) -> str | None:
    """Run something shut in, and return what was said where it failed."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(sandbox.lend())
        said = stack.enter_context(tempfile.TemporaryFile())
        try:
            process = sandbox.start(trial, stdout=said, stderr=said, folder=folder, env=env)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return str(error)
        stack.callback(end, process)
        try:
            status = process.wait(_TRIAL_S)
        except subprocess.TimeoutExpired:
            return f"not through after {_TRIAL_S} s"
        said.seek(0)
        return said.read(2_000).decode("utf-8", "replace") or f"exit {status}" if status else None


# --- The filter of system calls ---

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
