"""What systemd does for `x-systemd.automount`: watches a directory and runs mount(8), in its own process group, when somebody looks into it.

usage: automount.py DIR        prints "watching"; ends, and takes the watch away, when its standard input ends

The kernel's side is Documentation/filesystems/autofs.rst, protocol 5, a direct mount: it tells who looked, makes everyone outside of this
process group wait, and is told when the mount is there or has failed."""

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
READY, FAIL = 0x9360, 0x9361
# struct autofs_v5_packet: protocol, type, token, device, inode, five numbers about who looked, a name of 256 bytes, padding.
PACKET = struct.Struct("=iiIIQIIIII256s4x")
MISSING_DIRECT = 5


def main(directory):
    os.setpgid(0, 0)
    requests, kernel = os.pipe()
    options = f"fd={kernel},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    if LIBC.mount(b"automount", directory.encode(), b"autofs", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"autofs at {directory}")
    os.close(kernel)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    print("watching", flush=True)
    while True:
        ready, _, _ = select.select([requests, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        _, kind, token, *_ = PACKET.unpack(os.read(requests, PACKET.size))
        if kind != MISSING_DIRECT:
            raise ValueError(f"a packet of type {kind}")
        done = subprocess.run(["mount", directory], stdin=subprocess.DEVNULL)
        fcntl.ioctl(root, READY if done.returncode == 0 else FAIL, token)
    os.close(root)
    os.close(requests)
    LIBC.umount2(directory.encode(), 2)


main(sys.argv[1])
