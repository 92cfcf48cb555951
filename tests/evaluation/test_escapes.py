"""What a program in the sandbox tries and does not get: the machine, its neighbours, more than its share."""

# ruff: noqa: E501 - a row is a program

from __future__ import annotations

import textwrap

import pytest
from boxes import FOUND, LONG_S, boxed_only, checks

#: Each defines `f`, which says whether it got out.
OUT = {
    "a file of the machine": "def f():\n    try: return bool(open('/etc/shadow').read())\n    except OSError: return False",
    "the home": "import os\ndef f(): return os.path.exists('/home') or len(os.listdir('/root') if os.path.exists('/root') else []) > 1",
    "the files of the project": """
        import os, sys
        def f(): return any('tests' in names or '.git' in names for path in sys.path for names in [os.listdir(path) if os.path.isdir(path) else []])
    """,
    "the environment": "import os\ndef f(): return any('KEY' in name for name in os.environ)",
    "the environment of another process": """
        import os
        def f():
            told = b''
            for name in os.listdir('/proc'):
                try: told += open(f'/proc/{name}/environ', 'rb').read()
                except OSError: pass
            return b'KEY' in told or b'HOME' in told
    """,
    "another process": "import os\ndef f(): return len([n for n in os.listdir('/proc') if n.isdigit()]) > 4",
    "a signal to another process": """
        import os
        def f():
            for number in range(10, 300):
                try: os.kill(number, 0); return True
                except OSError: pass
            return False
    """,
    "the memory of another process": """
        import os
        def f():
            try: return open('/proc/1/mem', 'rb').read(1) is not None
            except OSError: return False
    """,
    "the network": """
        import socket
        def f():
            for address in (('127.0.0.1', 22), ('192.0.2.1', 80)):
                try: socket.create_connection(address, 1); return True
                except OSError: pass
            return False
    """,
    "a card of the network": "import socket\ndef f(): return [name for _, name in socket.if_nameindex()] != ['lo']",
    "a socket of a service": """
        import os, socket
        def f():
            for path in ('/var/run/docker.sock', '/run/dbus/system_bus_socket', '/tmp/.X11-unix/X0'):
                try: socket.socket(socket.AF_UNIX).connect(path); return True
                except OSError: pass
            return False
    """,
    "an abstract socket": "def f(): return any('@' in line for line in open('/proc/net/unix').readlines()[1:])",
    "writing to what is installed": """
        import os, sys
        def f():
            for path in [*sys.path, '/usr', '/lib', '/', '/dev', '/etc', '/proc']:
                try: open(os.path.join(path, 'mine'), 'w'); return True
                except OSError: pass
            return False
    """,
    "being root": "import os\ndef f(): return os.getuid() == 0 or os.geteuid() == 0",
    "becoming root": "import os\ndef f():\n    try: os.setuid(0); return True\n    except OSError: return False",
    "a capability": "def f(): return any(l.startswith('CapEff') and int(l.split()[1], 16) for l in open('/proc/self/status'))",
    "a capability by a program of root's": """
        import subprocess
        def f():
            for name in ('su', 'mount', 'sudo', 'passwd'):
                try: told = subprocess.run([name, '-c', 'id -u', '/x'], capture_output=True, text=True, timeout=5).stdout
                except (OSError, subprocess.SubprocessError): continue
                if told.strip() == '0': return True
            return False
    """,
    "a user namespace": """
        import ctypes, os
        def f(): return any(ctypes.CDLL(None).unshare(flags) == 0 for flags in (0x10000000, 0x10020000, 0x70000000))
    """,
    "a user namespace for a child": """
        import ctypes
        def f():
            child = ctypes.CDLL(None).syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
            if child == 0: ctypes.CDLL(None)._exit(0)
            return child > 0
    """,
    "mounting": "import ctypes\ndef f(): return ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "another root": "import os\ndef f():\n    try: os.chroot('/tmp'); return True\n    except OSError: return False",
    "a device": """
        import os, stat
        def f():
            try: os.mknod('/tmp/disk', stat.S_IFBLK | 0o600, os.makedev(8, 0)); return True
            except OSError: return any(name.startswith(('sd', 'vd', 'mem', 'kmsg', 'fuse')) for name in os.listdir('/dev'))
    """,
    "the kernel's log and settings": """
        import os
        def f():
            for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/overcommit_memory'):
                try: os.open(path, os.O_WRONLY); return True
                except OSError: pass
            return False
    """,
    "typing into a terminal": """
        import fcntl, os
        def f():
            for number in range(64):
                try: fcntl.ioctl(number, 0x5412, b'x'); return True
                except OSError: pass
            try: os.open('/dev/tty', os.O_RDWR); return True
            except OSError: return False
    """,
    "io_uring, bpf, perf and keys": """
        import ctypes
        def f(): return any(ctypes.CDLL(None).syscall(number, 0, 0, 0, 0, 0) >= 0 for number in (425, 321, 298, 250))
    """,
    "memory without a name": "import os\ndef f():\n    try: os.memfd_create('x'); return True\n    except OSError: return False",
    "memory of System V": "import ctypes\ndef f(): return ctypes.CDLL(None).shmget(0, 2**20, 0o1600) >= 0",
    "more than its share of /dev/shm": """
        def f():
            try: open('/dev/shm/x', 'wb').write(bytes(17 * 2**20)); return True
            except OSError: return False
    """,
    "more than its share of /tmp": """
        def f():
            try:
                for i in range(4): open(f'/tmp/{i}', 'wb').write(bytes(30 * 2**20))
                return True
            except OSError: return False
    """,
    "more processes than it may have": """
        import os, time
        def f():
            for number in range(100):
                try: child = os.fork()
                except OSError: return False
                if not child:
                    time.sleep(60)
                    os._exit(0)
            time.sleep(60)
            return True
    """,
    "higher limits": """
        import resource
        def f():
            try: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return True
            except (OSError, ValueError): return False
    """,
}  # fmt: skip


@boxed_only
@pytest.mark.parametrize("program", OUT.values(), ids=OUT)
def test_nothing_gets_out_of_the_sandbox(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FOUND is not None
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-secret")

    said = FOUND.run(textwrap.dedent(program), checks("assert f() is False, f()"), LONG_S).said

    # Whoever takes too much may be ended before it can say so.
    assert said in ("passed", "failed: it starts more than 64 processes")


#: What many processes take together, each of them within its own limits.
GREEDY = {
    "memory": "x = bytearray(800 * 2**20)\n            for i in range(0, len(x), 4096): x[i] = 1",
    "memory that they share": "import mmap\n            x = mmap.mmap(-1, 800 * 2**20)\n            for i in range(0, len(x), 4096): x[i] = 1",
}


@boxed_only
@pytest.mark.parametrize("take", GREEDY.values(), ids=GREEDY)
def test_memory_is_bounded_over_all_processes(take: str) -> None:
    program = f"""
        import os, time
        def take():
            {take}
            time.sleep(60)
        def f():
            for number in range(6):
                if not os.fork(): take()
            time.sleep(60)
    """
    assert FOUND is not None

    assert "bytes of memory" in FOUND.run(textwrap.dedent(program), checks("f()"), LONG_S).said


@boxed_only
def test_what_it_leaves_behind_ends_with_it() -> None:
    program = """
        import os, time
        def f():
            if not os.fork():
                os.setsid()
                if not os.fork(): time.sleep(300)
                os._exit(0)
            return True
    """
    assert FOUND is not None

    assert FOUND.run(textwrap.dedent(program), checks("assert f()"), LONG_S).passed
