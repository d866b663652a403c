#!/usr/bin/env python3
"""A long mixed load on one server, and whether it holds more at the end than after the first fifth of the time.

    python3 soak.py millpond --minutes 10

Requests on kept connections for files of several sizes, with and without Accept-Encoding, ranges, misses, uploads that are removed
from the disk again, connections that are cut within a head, within a body and within a response, and heads that never end. Every few
seconds it reads the server's memory, descriptors and threads; it prints them, and at the end the first, the last and the most.
"""
import argparse
import os
import random
import socket
import threading
import time

from run import docroot, rss_kib, server


def exchange(s, raw, head=False):
    """Sends a request and reads the answer whole; the status."""
    s.sendall(raw)
    got = b""
    while b"\r\n\r\n" not in got:
        piece = s.recv(65536)
        if not piece:
            raise OSError("the end in a head")
        got += piece
    top, body = got.split(b"\r\n\r\n", 1)
    left = 0
    for line in top.split(b"\r\n")[1:]:
        name, value = line.split(b":", 1)
        if name.lower() == b"content-length":
            left = int(value)
    left = 0 if head or top[9:12] == b"304" else left - len(body)
    while left > 0:
        piece = s.recv(min(left, 1 << 18))
        if not piece:
            raise OSError("the end in a body")
        left -= len(piece)
    return int(top[9:12])


def client(port, root, stop, counts, seed):
    r = random.Random(seed)
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    s = None
    while not stop.is_set():
        try:
            s = s or socket.create_connection(("127.0.0.1", port), 10)
            kind = r.randrange(12)
            if kind < 6:
                i = r.randrange(500)
                coding = r.choice([b"", b"Accept-Encoding: gzip, deflate, br, zstd\r\n", b"Range: bytes=10-99\r\n"])
                status = exchange(s, b"GET /f/%d/%d.bin HTTP/1.1\r\n%s%s\r\n" % (i % 100, i, host, coding))
            elif kind == 6:
                status = exchange(s, b"GET /index.html HTTP/1.1\r\n%sAccept-Encoding: br\r\n\r\n" % host)
            elif kind == 7:
                status = exchange(s, b"GET /nothing/%d HTTP/1.1\r\n%s\r\n" % (r.randrange(10**6), host))
            elif kind == 8:
                body = os.urandom(r.randrange(1, 200_000))
                name = b"soak-%d-%d" % (seed, r.randrange(10**9))
                status = exchange(s, b"POST /uploads/?name=%s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (name, host, len(body)) + body)
                os.unlink(f"{root}/uploads/{name.decode()}")
            else:
                # one that is cut, in one of several places
                raw = [b"GET /index.html HTT", b"GET /f/1/1.bin HTTP/1.1\r\n%s\r\n" % host,
                       b"POST /uploads/?name=half HTTP/1.1\r\n%sContent-Length: 100000\r\n\r\nhalf" % host][kind - 9]
                s.sendall(raw)
                s.close()
                s, status = None, 0
            counts[status] = counts.get(status, 0) + 1
        except OSError as e:
            counts[str(e)] = counts.get(str(e), 0) + 1
            s = None
        time.sleep(r.random() * 0.004)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("server")
    ap.add_argument("--minutes", type=float, default=10)
    ap.add_argument("--clients", type=int, default=8)
    a = ap.parse_args()
    with docroot(100_000, True, 500) as root, server(a.server, root) as (p, port):
        stop, counts = threading.Event(), {}
        threads = [threading.Thread(target=client, args=(port, root, stop, counts, i)) for i in range(a.clients)]
        for t in threads:
            t.start()
        seen, begun = [], time.monotonic()
        while time.monotonic() - begun < a.minutes * 60:
            time.sleep(a.minutes * 60 / 40)
            row = rss_kib(p.pid), len(os.listdir(f"/proc/{p.pid}/fd")), len(os.listdir(f"/proc/{p.pid}/task"))
            seen.append(row)
            print(f"{time.monotonic() - begun:6.0f} s: {row[0] / 1024:6.1f} MiB, {row[1]} descriptors, {row[2]} threads", flush=True)
        stop.set()
        for t in threads:
            t.join()
        time.sleep(3)
        fds = len(os.listdir(f"/proc/{p.pid}/fd"))
        settled = seen[len(seen) // 5:]
        print(f"answers by status (0: cut by the client): {dict(sorted(counts.items(), key=str))}")
        print(f"memory after a fifth of the time {settled[0][0] / 1024:.1f} MiB, at the end {settled[-1][0] / 1024:.1f}, most {max(x[0] for x in settled) / 1024:.1f}; "
              f"descriptors {settled[0][1]}, {settled[-1][1]}, {max(x[1] for x in settled)}, and {fds} after the load")


if __name__ == "__main__":
    main()
