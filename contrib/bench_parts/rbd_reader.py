"""Reads an image of a Ceph cluster through librbd by several threads that each hash what they have read, and prints MB/s.

A program of its own, for the interpreter that the distribution's python3-rbd belongs to: rbd_reader.py POOL/IMAGE CHUNK THREADS
"""

import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import rados
import rbd


def main(what, chunk, threads):
    (pool_name, name), chunk, threads = what.split("/"), int(chunk), int(threads)
    # As backyfs has it: large reads gain nothing from a cache.
    with rados.Rados(conffile=os.environ["CEPH_CONF"], conf={"rbd_cache": "false"}) as cluster, cluster.open_ioctx(pool_name) as pool:
        with rbd.Image(pool, name, read_only=True) as image:
            size = image.size()

            def read(worker):
                for at in range(worker * chunk, size, threads * chunk):
                    hashlib.sha256(image.read(at, min(chunk, size - at)))

            start = time.perf_counter()
            with ThreadPoolExecutor(threads) as workers:
                list(workers.map(read, range(threads)))
            print(size / 1e6 / (time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
