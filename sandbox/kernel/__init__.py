"""One thin file per kernel facility; no policy knowledge here.

Reading order: libc (how a call is made), namespaces, mounts, privileges, rlimits, landlock, seccomp, cgroup, memfd,
processes. Each function makes one system call (or one fixed sequence), and raises KernelRefused with the step and errno.
"""
