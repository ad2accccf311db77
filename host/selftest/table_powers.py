"""Attacks by what a process can do: sockets, other processes, and the kernel's privileged calls."""

from __future__ import annotations

import os
import signal
import socket

from fxcell.host.selftest.attack import STOPPED, Attack, raw

_FILTER = "seccomp"
_MPTCP, _VSOCK, _NETLINK, _PACKET, _ALG = 262, 40, 16, 17, 38


def _socket(name: str, what: str, family: int, kind: int, protocol: int = 0) -> Attack:
    return Attack(
        f"socket_{name}", "network", f"makes {what}", "network.make_socket", _FILTER,
        arguments=lambda _a: {"family": int(family), "kind": int(kind), "protocol": protocol},
    )  # fmt: skip


NETWORK = (
    Attack(
        "tcp", "network", "connects to a listener of the host: 127.0.0.1, localhost, ::ffff:127.0.0.1", "network.connect", _FILTER,
        arguments=lambda a: {
            "hosts": ["127.0.0.1", "localhost", "::ffff:127.0.0.1"], "port": a.sentinels.tcp_port, "token": a.sentinels.secret
        },
    ),
    Attack(
        "tcp6", "network", "connects to a listener of the host on ::1", "network.connect", _FILTER,
        arguments=lambda a: {"hosts": ["::1"], "port": a.sentinels.tcp6_port or 9, "token": a.sentinels.secret},
    ),
    Attack(
        "udp", "network", "sends a datagram, as DNS tunnels do", "network.send", _FILTER,
        arguments=lambda a: {"port": a.sentinels.udp_port, "token": a.sentinels.secret},
    ),
    Attack(
        "dns", "network", "has a name looked up", "network.look_up", _FILTER,
        arguments=lambda _a: {"name": "localhost"},
    ),
    Attack("listen", "network", "waits for connections", "network.listen", _FILTER),
    Attack(
        "unix_named", "network", "connects to a named socket, as to Docker or D-Bus", "network.unix", _FILTER,
        arguments=lambda a: {"address": a.sentinels.unix_path, "kind": int(socket.SOCK_STREAM), "token": a.sentinels.secret},
    ),
    Attack(
        "unix_abstract", "network", "connects to an abstract socket", "network.unix", _FILTER,
        arguments=lambda a: {"address": a.sentinels.abstract_stream, "kind": int(socket.SOCK_STREAM), "token": a.sentinels.secret},
    ),
    Attack(
        "unix_datagram", "network", "sends to an abstract socket, also from an end of a pair", "network.unix", _FILTER,
        arguments=lambda a: {"address": a.sentinels.abstract_datagram, "kind": int(socket.SOCK_DGRAM), "token": a.sentinels.secret},
    ),
    Attack(
        "unix_by_channel", "network", "sends to a socket's name over the channel to the host", "network.over_the_channel", _FILTER,
        ends=STOPPED | {"protocol_violation", "raised"},
        arguments=lambda a: {"address": a.sentinels.abstract_datagram, "token": a.sentinels.secret},
    ),
    _socket("raw", "a raw IP socket", socket.AF_INET, socket.SOCK_RAW, 1),
    _socket("packet", "a packet socket", _PACKET, socket.SOCK_RAW),
    _socket("netlink", "a netlink socket", _NETLINK, socket.SOCK_RAW),
    _socket("vsock", "a socket to the hypervisor", _VSOCK, socket.SOCK_STREAM),
    _socket("mptcp", "an MPTCP socket, which rules for TCP forget", socket.AF_INET, socket.SOCK_STREAM, _MPTCP),
    _socket("alg", "a socket to the kernel's cryptography", _ALG, socket.SOCK_SEQPACKET),
)  # fmt: skip


def _kill(name: str, what: str, pid: int, number: int = 0, granted_by: str = "") -> Attack:
    return Attack(
        name, "processes", what, "others.kill", _FILTER, granted_by=granted_by,
        arguments=lambda _a: {"pid": pid, "number": number},
    )  # fmt: skip


PROCESSES = (
    Attack("fork", "processes", "becomes two", "others.fork", _FILTER, granted_by="processes"),
    Attack(
        "daemon", "processes", "leaves a process behind: fork, setsid, fork", "others.leave_a_daemon", _FILTER,
        granted_by="processes",
    ),
    Attack(
        "exec", "processes", "becomes another program", "others.run_program", _FILTER, STOPPED,
        arguments=lambda _a: {"path": "/bin/true"},
    ),
    Attack("exec_memory", "processes", "becomes a program in memory", "others.run_memory", _FILTER),
    Attack(
        "execveat", "processes", "becomes a program in memory by execveat", "others.run_empty_memory", _FILTER,
        arguments=lambda a: {"number": a.numbers("execveat")},
    ),
    Attack("shell", "processes", "starts a shell", "others.shell", _FILTER),
    Attack(
        "kill", "processes", "kills a process of the host's user", "others.kill", _FILTER,
        arguments=lambda a: {"pid": a.sentinels.process[0], "number": int(signal.SIGKILL)},
    ),
    _kill("kill_host", "reaches for the host with signal 0", os.getpid()),
    # With the word it may signal what is in its own pid namespace; process 1 there takes no harm from it.
    _kill("kill_parent", "reaches for its supervisor with signal 0", 1, granted_by="processes"),
    _kill("kill_everybody", "reaches for every process with signal 0", -1, granted_by="processes"),
    Attack(
        "kill_by_pidfd", "processes", "kills it through a pidfd", "others.kill_by_descriptor", _FILTER,
        arguments=lambda a: {"pid": a.sentinels.process[0]},
    ),
    Attack(
        "ptrace", "processes", "attaches to it as a debugger", "kernel.call", _FILTER,
        arguments=lambda a: {
            "name": "ptrace", "number": a.numbers("ptrace"), "arguments": [0x4206, a.sentinels.process[0], 0, 0]
        },
    ),
    Attack(
        "read_memory", "processes", "reads its memory by process_vm_readv", "others.read_memory", _FILTER,
        arguments=lambda a: {
            "pid": a.sentinels.process[0], "address": a.sentinels.process[1], "number": a.numbers("process_vm_readv")
        },
    ),
    Attack(
        "read_proc", "processes", "reads its memory and environment in /proc", "others.read_proc", "minimal_root",
        arguments=lambda a: {"pid": a.sentinels.process[0], "address": a.sentinels.process[1]},
    ),
    Attack(
        "starve", "processes", "takes its descriptors and its priority away", "others.starve", _FILTER,
        arguments=lambda a: {"pid": a.sentinels.process[0]},
    ),
    raw("pidfd_getfd", -1, 0, 0, tries="takes a descriptor out of another process", category="processes"),
    raw("kcmp", 1, 2, 0, 0, 0, tries="compares what two processes hold", category="processes"),
)  # fmt: skip

_NEW_USER, _BAD = 0x10000000, 0xFFFFFFFF
# With root's powers these are still harmless: a null pointer, a flag that does not exist, or a question only.
PRIVILEGES = (
    raw("setuid", 0, tries="becomes root"),
    raw("capset", 0, 0, tries="takes capabilities"),
    raw("unshare", _NEW_USER, tries="makes a user namespace to be root in"),
    Attack(
        "clone_newuser", "privileges", "forks into a user namespace", "kernel.new_user_by_clone", _FILTER,
        arguments=lambda a: {"number": a.numbers("clone")},
    ),
    raw("clone3", 0, 88, tries="makes one by clone3, whose flags no filter can see"),
    raw("setns", 0, _NEW_USER, tries="enters another namespace"),
    raw("mount", 0, 0, 0, 0, 0),
    raw("umount2", 0, 2),
    raw("pivot_root", 0, 0),
    raw("chroot", 0),
    raw("open_tree", -100, 0, 1, tries="mounts by the newer calls: open_tree"),
    raw("fsopen", 0, 0, tries="mounts by the newer calls: fsopen"),
    raw("open_by_handle_at", -100, 0, 0),
    raw("keyctl", 0, -3, 0, tries="reads the session's keys"),
    raw("add_key", 0, 0, 0, 0, -3),
    raw("bpf", 0, 0, 0),
    raw("userfaultfd", 1, tries="takes over page faults, the tool of many exploits"),
    raw("io_uring_setup", 1, 0, tries="makes calls that no filter sees"),
    raw("perf_event_open", 0, 0, -1, -1, 0),
    raw("kexec_load", 0, 0, 0, _BAD, tries="boots another kernel"),
    raw("init_module", 0, 0, 0, tries="loads a kernel module"),
    raw("finit_module", -1, 0, 0),
    raw("reboot", 0, 0, 0, 0),
    raw("swapon", 0, 0),
    raw("acct", 1),
    raw("syslog", 10, 0, 0, tries="asks for the kernel's log"),
    raw("settimeofday", 1, 0, tries="sets the clock"),
    raw("sethostname", 0, -1),
    raw("quotactl", 0, 0, 0, 0),
    raw("personality", _BAD, tries="switches off address randomisation"),
    raw("seccomp_listener", 1, 8, 0, call="seccomp", tries="installs a listener of its own"),
    raw("memfd_secret", 0, tries="takes memory that no other process can see"),
    Attack(
        "prctl", "privileges", "takes back what prctl locked", "kernel.undo_lockdown", _FILTER,
        arguments=lambda a: {"number": a.numbers("prctl")},
    ),
    Attack("limits", "privileges", "raises its limits", "kernel.raise_limits", _FILTER),
    Attack(
        "terminal", "privileges", "types into the terminal: TIOCSTI, also + 2^32", "kernel.type_into_the_terminal", _FILTER,
        arguments=lambda a: {"number": a.numbers("ioctl")},
    ),
    Attack(
        "written_code", "privileges", "runs machine code that it wrote", "kernel.run_written_memory", _FILTER,
        granted_by="writable_code", x86_only=True,
    ),
    Attack(
        "int_0x80", "privileges", "makes a 32-bit system call, by code it maps from a memory file", "kernel.call_32_bit", _FILTER,
        ends=STOPPED | {"signal"}, x86_only=True,
    ),
    Attack(
        "x32", "privileges", "makes an x32 system call", "kernel.call_x32", _FILTER,
        ends=STOPPED | {"signal"}, x86_only=True,
    ),
)  # fmt: skip
