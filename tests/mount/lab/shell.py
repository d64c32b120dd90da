"""Running programs, comparing bytes, waiting: what every test of the mount uses."""

import ctypes
import errno
import hashlib
import os
import shutil
import subprocess
import time

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(AssertionError):
    """What a test expected did not happen."""


def needs(*tools):
    """Fails unless these programs are there: what was not tested must not look as if it had been."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    check(not missing, f"not installed: {', '.join(missing)}")


def sh(*argv, ok=True, timeout=180, **kw):
    """Runs a program to its end, with `input` bytes or nothing on its standard input. A non-zero exit is a failure unless `ok` is
    False. Returns the CompletedProcess, output as bytes."""
    argv = [str(a) for a in argv]
    content = kw.pop("input", None)
    kw["stdin"] = subprocess.PIPE if content is not None else subprocess.DEVNULL
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
    try:
        out, err = process.communicate(content, timeout)
    except subprocess.TimeoutExpired:
        # One that waits for a mount that does not answer cannot be killed: it is not waited for.
        process.kill()
        raise Failed(f"{' '.join(argv)[:300]}: not done after {timeout} s") from None
    done = subprocess.CompletedProcess(argv, process.returncode, out, err)
    if ok and done.returncode != 0:
        raise Failed(f"{' '.join(argv)[:300]} -> exit {done.returncode}: {done.stderr.decode(errors='replace')[-600:].strip()}")
    return done


def script(text, *args, ok=True, **kw):
    """Runs a bash script with positional arguments."""
    return sh("bash", "-c", text, "bash", *args, ok=ok, **kw)


def digest(path):
    """Hex SHA-256 of a file's bytes, read with plain read(2)."""
    h = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while piece := f.read(4 * MIB):
            h.update(piece)
    return h.hexdigest()


def same(a, b, what=""):
    """Fails and names the first differing offset unless two files hold the same bytes."""
    with open(a, "rb", buffering=0) as fa, open(b, "rb", buffering=0) as fb:
        offset = 0
        while True:
            pa, pb = fa.read(MIB), fb.read(MIB)
            if pa != pb:
                at = next((i for i, (x, y) in enumerate(zip(pa, pb)) if x != y), min(len(pa), len(pb)))
                raise Failed(f"{what or b}: differs from {a} at offset {offset + at} (pieces of {len(pa)} and {len(pb)})")
            if not pa:
                return
            offset += len(pa)


def equal(got, want, what=""):
    """Fails unless two values are equal."""
    if got != want:
        raise Failed(f"{what}: got {got!r}, want {want!r}"[:900])


def check(condition, what):
    """Fails with `what` unless the condition holds."""
    if not condition:
        raise Failed(str(what)[:900])


def eventually(what, condition, seconds=8.0):
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class raises:
    """`with raises(errno.EBUSY): ...` fails unless the block ends with an OSError of one of these numbers."""

    def __init__(self, *numbers):
        self.numbers = numbers
        self.error = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        names = "/".join(errno.errorcode[n] for n in self.numbers)
        if kind is None:
            raise Failed(f"expected {names}, but it succeeded")
        if not isinstance(error, OSError):
            return False
        if error.errno not in self.numbers:
            raise Failed(f"expected {names}, got {error!r}") from error
        self.error = error
        return True


def fallocate(fd, mode, offset, length):
    """fallocate(2) with any mode; raises OSError."""
    if LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE = 0x1, 0x2, 0x8, 0x10


def pattern(seed, length):
    """Deterministic bytes that do not compress."""
    return hashlib.shake_128(f"backyfs {seed}".encode()).digest(length)
