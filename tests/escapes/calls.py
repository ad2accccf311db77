"""Raw system calls for attacks: by number, through ctypes, as machine code would make them."""

from __future__ import annotations

from fxcell import zef_function

# linux/arch/x86/entry/syscalls/syscall_64.tbl; numbers from 424 on are the same on every architecture.
NUMBERS = {
    "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "ptrace": 101, "mknod": 133, "personality": 135, "pivot_root": 155,
    "chroot": 161, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169, "init_module": 175, "quotactl": 179,
    "add_key": 248, "request_key": 249, "keyctl": 250, "mknodat": 259, "unshare": 272, "vmsplice": 278, "perf_event_open": 298,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "seccomp": 317, "kexec_file_load": 320, "bpf": 321, "execveat": 322,
    "userfaultfd": 323, "acct": 163, "iopl": 172, "settimeofday": 164, "timer_create": 222,
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "clone3": 435,
    "pidfd_getfd": 438, "mount_setattr": 442, "landlock_create_ruleset": 444, "memfd_secret": 447, "pidfd_open": 434,
}  # fmt: skip


@zef_function
def make_call(number, *arguments):
    """Answer (result, errno) of one system call."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    return result, ctypes.get_errno() if result == -1 else 0
