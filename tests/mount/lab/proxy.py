"""Stands between the program and its S3 server, counts what passes, and does it wrong when told to.

A rule is a function that is asked about every request and answers with a fault, or None to let it pass. Faults happen in the order
in which requests arrive; with one connection at a time, or with rules that look at the request only, a test can be repeated.
"""

import os
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from .bucket import server

ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


@dataclass
class Fault:
    """What is done to a request. `kind` is one of:

    status    answered with `status` and `code` at once; the server never hears of it
    lost      the server does it, and the answer is an error: `status`, or a reset when that is 0
    reset     a part of the answer's body, then a reset of the connection
    cut       a part of the body, then an orderly end
    wrong     bytes of the body are changed
    longer    more body than was announced, in an answer that is consistent in itself
    repeat    the answer to another request of the same method
    stale     the answer that this request got before
    hang      nothing for `seconds`, then a reset
    slow      `seconds` of nothing, then the answer
    refuse    the connection is closed at once
    """

    kind: str
    status: int = 500
    code: str = "InternalError"
    message: str = "injected"
    seconds: float = 3600.0
    headers: tuple = ()


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    query: str
    headers: dict = field(repr=False)
    length: int
    fault: str = ""

    @property
    def kind(self):
        """put, get, list or delete."""
        return "list" if "list-type=" in self.query else self.method.lower()

    def below(self, part):
        """Whether it is about an object, or a prefix, below this part of a repository."""
        return f"/{part}/" in self.path + "/" or f"%2F{part}%2F" in self.query


class Proxy:
    """Listens on a port of its own."""

    def __init__(self):
        host, port, self.access, self.secret = server()
        self.upstream = (host, port)
        self.rule = None
        self.requests = []
        self.connections = 0
        # Requests being answered, and the most there ever were, of each kind.
        self.under_way, self.most = Counter(), Counter()
        self.answers = {}
        self.last = {}
        self.lock = threading.Lock()
        self.open = set()
        self.listener = None
        self.port = None
        self.up()

    @property
    def url(self):
        """What the program is told."""
        return f"http://127.0.0.1:{self.port}"

    def up(self):
        """Listens, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port or 0))
        listener.listen(128)
        self.port, self.listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self):
        """Vanishes: nobody listens, every connection is reset."""
        listener, self.listener = self.listener, None
        if listener:
            # A thread that waits in accept() keeps the socket open until it is woken.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self.lock:
            connections, self.open = list(self.open), set()
        for connection in connections:
            reset(connection)

    def take(self):
        """The requests since the last call."""
        with self.lock:
            requests, self.requests = self.requests, []
        return requests

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self.open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        upstream, request = None, None
        reader = client.makefile("rb")
        try:
            while True:
                head = read_head(reader)
                if head is None:
                    return
                request = parse(head)
                with self.lock:
                    self.under_way[request.kind] += 1
                    self.most |= self.under_way
                    fault = self.rule(request) if self.rule else None
                    request.fault = fault.kind if fault else ""
                    self.requests.append(request)
                if fault and fault.kind in ("refuse", "hang", "status"):
                    if fault.kind == "hang":
                        time.sleep(fault.seconds)
                    if fault.kind != "status":
                        return reset(client)
                    skip(reader, request.length)
                    self._answered(request)
                    asked, request = request, None
                    client.sendall(error(fault, asked))
                    continue
                if fault and fault.kind == "slow":
                    time.sleep(fault.seconds)
                if upstream is None:
                    upstream = socket.create_connection(self.upstream)
                    answers = upstream.makefile("rb")
                upstream.sendall(head)
                pump(reader, upstream, request.length)
                answer = read_head(answers)
                if answer is None:
                    return reset(client)
                answer, body = read_body(answers, answer)
                # Before it is passed on: whoever has it may ask again at once.
                self._answered(request)
                asked, request = request, None
                self._answer(client, asked, fault, answer, body)
                if fault and fault.kind in ("reset", "cut", "lost"):
                    return
        except OSError:
            return
        finally:
            for side in (client, upstream):
                if side is not None:
                    side.close()
            self._answered(request)
            with self.lock:
                self.open.discard(client)

    def _answered(self, request):
        if request is not None:
            with self.lock:
                self.under_way[request.kind] -= 1

    def _answer(self, client, request, fault, answer, body):
        same = (request.method, request.path, request.query, request.headers.get("range"))
        with self.lock:
            before, other = self.answers.get(same), self.last.get(request.kind)
            if not fault:
                self.last[request.kind] = (answer, body)
                if request.kind in ("list", "get"):
                    self.answers.setdefault(same, (answer, body))
        kind = fault.kind if fault else ""
        half = len(body) // 2
        if kind == "lost":
            return client.sendall(error(fault, request)) if fault.status else reset(client)
        if kind == "reset":
            client.sendall(answer + body[:half])
            return reset(client)
        if kind == "cut":
            client.sendall(answer + body[:half])
            return client.shutdown(socket.SHUT_RDWR)
        if kind == "wrong" and body:
            at = len(body) // 3
            body = body[:at] + bytes([body[at] ^ 0x55]) + body[at + 1 :]
        if kind == "longer":
            answer, body = resized(answer, len(body) + 7), body + b"surplus"
        if kind == "repeat" and other:
            answer, body = other
        if kind == "stale" and before:
            answer, body = before
        client.sendall(answer + body)


def parse(head):
    """The request that a head is of."""
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    path, _, query = target.partition("?")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
    return Request(method, path, query, headers, int(headers.get("content-length", 0)))


def read_head(reader):
    """Bytes up to and with the empty line; None at the end of the connection."""
    lines = []
    while True:
        line = reader.readline(65536)
        if not line:
            return None
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)


def length_of(head):
    """What an answer says of its length."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def read_body(reader, head):
    """Head and body of an answer; one that comes in chunks gets a length instead."""
    if b"transfer-encoding: chunked" not in head.lower():
        return head, reader.read(length_of(head))
    body = b""
    while size := int(reader.readline().split(b";")[0], 16):
        body += reader.read(size)
        reader.readline()
    reader.readline()
    lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"transfer-encoding:")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]), body


def resized(head, length):
    """An answer's head with another length."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(b"Content-Length: %d" % length if line.lower().startswith(b"content-length:") else line for line in lines)


def pump(reader, to, length):
    """Passes a body on."""
    while length:
        piece = reader.read1(min(length, 1 << 20))
        if not piece:
            raise OSError("the body ended early")
        to.sendall(piece)
        length -= len(piece)


def skip(reader, length):
    """Reads a body that nobody gets."""
    while length:
        piece = reader.read1(min(length, 1 << 20))
        if not piece:
            raise OSError("the body ended early")
        length -= len(piece)


def reset(connection):
    """Ends a connection with RST, also while another thread waits for it."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Whoever reads is woken; files made of the socket would keep it open.
        connection.shutdown(socket.SHUT_RD)
        os.close(connection.detach())
    except OSError:
        pass


def error(fault, request):
    """An answer that is an error as S3 words it; without a code, one that no S3 server would give."""
    body = ERROR.format(code=fault.code, message=fault.message).encode() if fault.code else b"<html>no</html>"
    extra = "".join(f"{k}: {v}\r\n" for k, v in fault.headers)
    head = f"HTTP/1.1 {fault.status} Injected\r\nContent-Type: application/xml\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if request.method == "HEAD" else body)
