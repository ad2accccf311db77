"""What the kernel lab boots: a stock Debian kernel, and an initramfs with a Debian tree, the libraries and the checkout.

Used by:  scripts/kernel_lab.py. Standard library only; needs root, apt-get and this machine's own Debian mirror.
Writes:   build/kernel-lab/ only (and the Debian packages qemu-system-x86, debootstrap where they are missing):
              debs/                 the kernel's package and busybox-static, as downloaded, never installed
              KERNEL/vmlinuz        the kernel, taken out of its package
              root/, root.tar       `debootstrap --variant=minbase`, in /opt/venv the wheels of build/wheels
              initramfs.cpio        made anew for each run: busybox, guest_init.sh, root.tar, the checkout
Again:    what is there and fits is kept; delete the folder to start over.

No disk and no network device: virtio and ext4 are modules in Debian's kernel, and tests need neither.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "build" / "kernel-lab"
WHEELS = ROOT / "build" / "wheels"
sys.path.insert(0, str(ROOT / "scripts"))
import set_up  # noqa: E402  (scripts/ is no package)
import test_as_user  # noqa: E402

SUITE = "bookworm"
SUITE_ABI = "cp311"
"""Tag of the wheels that the suite's own Python (3.11) can use."""
SUITE_PACKAGES = ("python3", "libseccomp2", "libcap2", "iproute2")
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "debootstrap": "debootstrap"}
"""Program -> the Debian package it comes with."""
EXTRAS = ("images",)
TEST_LIBRARIES = ("pytest", "pytest-timeout", "hypothesis", "hatchling", "editables")
"""Of the test extra only what running tests needs: linters and type checkers make up half of its size."""
CHECKOUT = "opt/checkout"
VENV = "opt/venv"


class CannotBuild(Exception):
    """The image cannot be made on this machine; the text says why, in one line."""


def install_tools() -> None:
    """Have qemu and debootstrap. Raises CannotBuild."""
    if os.geteuid() != 0:
        raise CannotBuild("only root can install qemu and unpack a Debian tree")
    if shutil.which("apt-get") is None:
        raise CannotBuild("this machine has no apt-get to get qemu and a Debian kernel with")
    missing = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    if missing and not set_up.install_system_packages(missing):
        raise CannotBuild(f"apt-get could not install {' '.join(missing)}")
    if not any(WHEELS.glob(f"python_prctl-*-{SUITE_ABI}-*.whl")):
        raise CannotBuild(f"{WHEELS} has no wheels for {SUITE}'s Python ({SUITE_ABI}): set up with PYTHON=python3.11")


# --- the kernel ---


def kernel(package: str) -> Path:
    """The bootable image of a kernel package, or of the newest one that a metapackage such as linux-image-amd64 needs."""
    name = _dependency(package)
    image = LAB / name / "vmlinuz"
    if not image.is_file():
        image.parent.mkdir(parents=True, exist_ok=True)
        _take_out(_downloaded(name), re.compile(r"\./boot/vmlinuz-.*"), image)
    return image


def _dependency(package: str) -> str:
    """What a metapackage stands for: the image of the suite's kernel, whose name has its version; else the name itself."""
    listing = subprocess.run(["apt-cache", "depends", "--important", package], capture_output=True, text=True, check=False)
    names = re.findall(r"^\s*Depends: (linux-image-\d\S*)$", listing.stdout, re.MULTILINE)
    return names[0] if names else package


def _downloaded(package: str) -> Path:
    """The package's file, fetched once."""
    folder = LAB / "debs"
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in ("what is there", "lists as they are", "fresh lists"):
        if attempt == "fresh lists":
            subprocess.run(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"], stdout=subprocess.DEVNULL, check=False)
        if attempt != "what is there":
            # apt gives downloads to an unprivileged user, who cannot write into a folder of root's.
            fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
            subprocess.run(fetch, cwd=folder, stdout=subprocess.DEVNULL, check=False)
        if found := sorted(folder.glob(f"{package}_*.deb")):
            return found[-1]
    raise CannotBuild(f"apt-get cannot download {package}")


def _take_out(package: Path, name: re.Pattern[str], target: Path) -> None:
    """Extract one file of a Debian package."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and name.fullmatch(member.name) else None
                if content is not None:
                    target.write_bytes(content.read())
        process.stdout.read()  # type: ignore[union-attr]  # to the end, so that dpkg-deb can write it
    if not target.is_file():
        raise CannotBuild(f"{package.name} holds no {name.pattern}")


# --- the Debian tree with the libraries ---


def root_archive() -> Path:
    """root.tar, made anew when the suite, its packages, the libraries or this file changed."""
    archive, stamp = LAB / "root.tar", LAB / "root.stamp"
    wanted = _fingerprint()
    if archive.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return archive
    stamp.unlink(missing_ok=True)
    tree = LAB / "root"
    _bootstrap(tree)
    shutil.rmtree(tree / CHECKOUT, ignore_errors=True)
    shutil.rmtree(tree / VENV, ignore_errors=True)
    test_as_user.copy_checkout(tree / CHECKOUT)  # the editable install reads it; each run brings its own
    _make_venv(tree)
    skipped = [f"./{CHECKOUT}", "./dev/*", "./proc/*", "./sys/*", "./var/cache/apt", "./var/lib/apt/lists", "./usr/share/doc",
               "./usr/share/locale", "./usr/share/man"]  # fmt: skip
    subprocess.run(
        ["tar", "-C", tree, *(f"--exclude={name}" for name in skipped), "--numeric-owner", "-cf", archive, "."], check=True
    )
    stamp.write_text(wanted)
    return archive


def _fingerprint() -> str:
    names = sorted(wheel.name for wheel in WHEELS.glob("*.whl"))
    parts = [SUITE, *SUITE_PACKAGES, *names, Path(__file__).read_text(), (ROOT / "pyproject.toml").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _bootstrap(tree: Path) -> None:
    """Debian's smallest system and our packages, from the mirror this machine uses."""
    done = tree / "etc" / "kernel-lab"
    wanted = f"{SUITE} {' '.join(SUITE_PACKAGES)}\n"
    if done.is_file() and done.read_text() == wanted:
        return
    shutil.rmtree(tree, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(SUITE_PACKAGES)}", SUITE, tree, _mirror()]
    with (LAB / "debootstrap.log").open("wb") as log:
        if subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False).returncode:
            raise CannotBuild(f"debootstrap failed; see {log.name}")
    done.write_text(wanted)


def _mirror() -> str:
    """Where this machine's apt gets the suite from."""
    listing = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(REPO_URI)", "Created-By: Packages"]
    for line in subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines():
        origin, codename, address = line.split("|")
        if (origin, codename) == ("Debian", SUITE):
            return address
    raise CannotBuild(f"apt is not set up for Debian {SUITE} here, so there is no mirror to take it from")


def _make_venv(tree: Path) -> None:
    """/opt/venv inside the tree, made by the tree's own Python from build/wheels, with the checkout as editable install."""
    python = f"/{VENV}/bin/python"
    _inside(tree, "/usr/bin/python3", "-m", "venv", "--without-pip", f"/{VENV}")
    helpers = tree / "tmp" / "kernel-lab"
    shutil.rmtree(helpers, ignore_errors=True)
    where = [set_up.VENV_PYTHON, "-c", "import pip; print(pip.__path__[0])"]
    pip = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    shutil.copytree(pip, helpers / "site" / "pip")  # pure Python, and works from anywhere
    shutil.copytree(WHEELS, helpers / "wheels", copy_function=os.link)
    wanted = set_up.requirements([*EXTRAS, "test"])
    own = set_up.requirements(list(EXTRAS))
    wanted = [*own, *(line for line in wanted if re.split(r"[^A-Za-z0-9-]", line)[0] in TEST_LIBRARIES)]
    install = [python, "-m", "pip", "--disable-pip-version-check", "-qq", "install", "--no-index", "--no-cache-dir",
               "--root-user-action=ignore", "--find-links", "/tmp/kernel-lab/wheels"]  # fmt: skip
    _inside(tree, *install, *wanted, path="/tmp/kernel-lab/site")
    _inside(tree, *install, "--no-deps", "--no-build-isolation", "--editable", f"/{CHECKOUT}", path="/tmp/kernel-lab/site")
    shutil.rmtree(helpers)


def _inside(tree: Path, *command: str, path: str = "") -> None:
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8", "PYTHONPATH": path}
    subprocess.run(["chroot", tree, *command], env=environment, stdin=subprocess.DEVNULL, check=True)


# --- the initramfs ---


def initramfs(archive: Path) -> Path:
    """One file for the kernel to unpack: the init script, busybox, and two archives that the script unpacks."""
    busybox = LAB / "busybox"
    if not busybox.is_file():
        _take_out(_downloaded("busybox-static"), re.compile(r"\./(usr/)?bin/busybox"), busybox)
    tree = LAB / "root"
    shutil.rmtree(tree / CHECKOUT, ignore_errors=True)
    test_as_user.copy_checkout(tree / CHECKOUT)
    # Here it takes a second; in the guest it would be part of every start. By content: no clock has to agree.
    compiling = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", f"/{CHECKOUT}"]
    _inside(tree, "/usr/bin/python3", *compiling)
    # a+rX: whatever umask made them, the guest's ordinary user reads them.
    packing = ["tar", "-C", tree, "--numeric-owner", "--owner=0", "--group=0", "--mode=a+rX"]
    subprocess.run([*packing, "-cf", LAB / "checkout.tar", CHECKOUT], check=True)
    target = LAB / "initramfs.cpio"
    with target.open("wb") as out:
        write_cpio(
            out,
            [
                ("bin", 0o040755, None),
                ("new", 0o040755, None),
                ("bin/busybox", 0o100755, busybox),
                ("init", 0o100755, ROOT / "tests" / "kernels" / "guest_init.sh"),
                ("1-root.tar", 0o100644, archive),
                ("2-checkout.tar", 0o100644, LAB / "checkout.tar"),
            ],
        )
    return target


def write_cpio(out: IO[bytes], entries: Iterable[tuple[str, int, Path | None]]) -> None:
    """A cpio archive in the "newc" form (Linux Documentation/driver-api/early-userspace/buffer-format.rst).

    entries: name, mode with the file type, file to take the content from; owner root, time 0, so equal for equal content.
    """
    for number, (name, mode, source) in enumerate([*entries, ("TRAILER!!!", 0, None)], start=1):
        size = source.stat().st_size if source else 0
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % value for value in fields) + encoded
        out.write(header + bytes(-len(header) % 4))
        if source:
            with source.open("rb") as content:
                shutil.copyfileobj(content, out, 1 << 20)
            out.write(bytes(-size % 4))
