#!/usr/bin/env python3
"""Cold data beside hot: what reading files from the disk does to requests for a small file that is in memory.

    python3 cold.py millpond,nginx --gib 4

A few GiB of files are written, brought to the disk and dropped from the kernel's page cache. Then 16 clients read them from end to
end while a normal load asks for a file of 1 KiB. Prints the requests per second and the p99 of the normal load without and with them,
and the bytes that were read by the others; then how fast these read without the normal load. Everything runs on loopback; the files
are removed at the end.

The server has processor 0, and all clients have processor 1. There the normal load runs before the readers (SCHED_FIFO, for which it
has to be root): otherwise it would wait for them, and that would be measured. On a virtual machine a disk that has just been busy can take
time from the processors for many seconds: so the load is also run alone after the files were dropped, and compares with that.
"""
import argparse
import os
import re
import socket
import subprocess
import threading
import time

from run import docroot, server

MS = {"us": 1e-3, "ms": 1, "s": 1e3}
FILES = 64


def normal(port, secs, extra=()):
    o = subprocess.run(["taskset", "-c", "1", "chrt", "-f", "1", "wrk", "-t1", "-c16", f"-d{secs}s", "--latency", f"http://127.0.0.1:{port}/index.html", *extra],
                       capture_output=True, text=True).stdout
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", o)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", o).group(1)), float(p99.group(1)) * MS[p99.group(2)]


def drop(paths):
    """Brings the files to the disk and out of the page cache."""
    for path in paths:
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(paths):
    """MiB of the files that are in the page cache, by fincore."""
    o = subprocess.run(["fincore", "-b", "-n", "-o", "RES", *paths], capture_output=True, text=True).stdout
    return sum(int(n) for n in o.split()) / (1 << 20)


def read_through(port, names, stop, got):
    """One client: a file after the other, a connection for each."""
    os.sched_setaffinity(0, {1})  # of this thread
    buffer = bytearray(256 << 10)
    while not stop.is_set():
        try:
            name = names.pop()
        except IndexError:
            return
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.settimeout(10)
            s.sendall(f"GET /{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            while not stop.is_set():
                n = s.recv_into(buffer)
                if not n:
                    break
                got[0] += n


def start_readers(clients, port, todo):
    """Clients that read all files: their threads, what stops them, and how many bytes they have got."""
    stop, got = threading.Event(), [0]
    readers = [threading.Thread(target=read_through, args=(port, todo, stop, got)) for _ in range(clients)]
    for r in readers:
        r.start()
    return readers, stop, got


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("servers")
    ap.add_argument("--gib", type=float, default=4)
    ap.add_argument("--clients", type=int, default=16)
    ap.add_argument("-d", type=int, default=6, help="seconds of each load")
    a = ap.parse_args()
    with docroot(1024) as root:
        piece = os.urandom(1 << 20)
        names = [f"big{i}.bin" for i in range(FILES)]
        for name in names:
            with open(f"{root}/{name}", "wb") as f:
                for _ in range(int(a.gib * 1024 / FILES)):
                    f.write(piece)
        paths = [f"{root}/{name}" for name in names]
        os.sync()
        time.sleep(10)  # until the disk rests
        for n in a.servers.split(","):
            with server(n, root) as (p, port):
                normal(port, 1)
                # the same load from memory, so that only the disk makes the difference
                for path in paths:
                    with open(path, "rb") as f:
                        while f.read(1 << 20):
                            pass
                rows = {}
                for what in ("alone", "beside files in memory", "alone, files dropped", "beside files on the disk"):
                    if "dropped" in what:
                        drop(paths)
                        time.sleep(1)
                        before = resident(paths)
                    readers, stop, got = start_readers(0 if "alone" in what else a.clients, port, names * 50)
                    rows[what] = normal(port, a.d) + (got[0] / (1 << 20) / a.d,)
                    stop.set()
                    for r in readers:
                        r.join()
                drop(paths)
                time.sleep(1)
                begun = time.monotonic()
                readers, _, got = start_readers(a.clients, port, list(names))
                for r in readers:
                    r.join()
                once = got[0] / (1 << 20) / (time.monotonic() - begun)
                for what, (rps, p99, mib) in rows.items():
                    print(f"{n:13} {what:25} {rps:8.0f} req/s, p99 {p99:7.2f} ms; {mib:7.0f} MiB/s read by the others"
                          + (f" ({before:.0f} MiB were in memory at the beginning)" if "disk" in what else ""), flush=True)
                print(f"{n:13} without it, each once from the disk: {once:7.0f} MiB/s read by the others", flush=True)


if __name__ == "__main__":
    main()
