#!/bin/busybox sh
# First process of the kernel lab's virtual machine, in the initramfs: unpack the system into a tmpfs and go there.
# switch_root, because pivot_root(2), which the sandbox uses, is impossible below the initial root file system.
# Reads: /*.tar, the archives of scripts/kernel_image.py. Arguments: passed on to guest.py, which takes over as process 1.
/bin/busybox mount -t tmpfs -o mode=755,size=80% root /new || exec /bin/busybox poweroff -f
/bin/busybox mkdir -p /new/dev
for archive in /*.tar; do
    /bin/busybox tar -x -C /new -f "$archive" || exec /bin/busybox poweroff -f
    /bin/busybox rm "$archive"
done
/bin/busybox mount -t devtmpfs dev /new/dev
exec /bin/busybox switch_root /new /opt/venv/bin/python -u /opt/checkout/tests/kernels/guest.py "$@"
