"""What a result was measured on, without names of machines or places in them."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import time

from benchmarks.sides import ROOT


def described() -> str:
    """One line: Python, kernel, CPUs, memory, user, start method, date, commit."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = (
        f"Python {platform.python_version()}", f"Linux {_kernel()}", platform.machine(),
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} CPUs ({_processor()})", f"{memory_gib:.0f} GiB",
        "root" if os.geteuid() == 0 else "ordinary user",
        f"pools by {multiprocessing.get_start_method()}", time.strftime("%Y-%m-%d", time.gmtime()), f"commit {_commit()}",
    )  # fmt: skip
    return ", ".join(parts)


def _kernel() -> str:
    """Version numbers only: a build's own suffix can name a machine."""
    return ".".join(platform.release().split("-")[0].split(".")[:3])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unnamed")
    except OSError:
        return "unnamed"


def _commit() -> str:
    """Short hash, with a mark when the tree differs from it; the results themselves do not count."""
    try:
        hash_ = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{hash_} with changes" if changed else hash_


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
