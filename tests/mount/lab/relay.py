"""Carries connections to a server on loopback into a network namespace, over a Unix socket, which lies in the filesystem and knows no
namespaces.

usage: relay.py outside SOCKET PORT      where the server is: from the socket to 127.0.0.1:PORT
       relay.py inside SOCKET PORT       in the namespace: from 127.0.0.1:PORT to the socket"""

import fcntl
import os
import socket
import struct
import sys
import threading

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def raise_loopback():
    """A fresh network namespace has its loopback interface down."""
    with socket.socket() as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def pump(source, sink):
    """Copies until the source ends, and passes the end on."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def carry(one, other):
    """Carries both ways until both have ended."""
    back = threading.Thread(target=pump, args=(other, one))
    back.start()
    pump(one, other)
    back.join()
    one.close(), other.close()


def main():
    side, path, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if side == "inside":
        raise_loopback()
        listener = socket.create_server(("127.0.0.1", port))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(64)
    print("ready", flush=True)
    while True:
        one = listener.accept()[0]
        if side == "inside":
            other = socket.socket(socket.AF_UNIX)
            other.connect(path)
        else:
            other = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=carry, args=(one, other), daemon=True).start()


if __name__ == "__main__":
    main()
