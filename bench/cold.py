#!/usr/bin/env python3
"""Cold data beside hot: what reading files from the disk does to requests for a small file that is in memory.

    python3 cold.py millpond,nginx --gib 4

A few GiB of files are written and brought to the disk. Then 16 clients (curl) read them from end to end while a normal load (wrk) asks
for a file of 1 KiB. In each round this load runs alone, beside clients that read the files from memory, alone after the files were
dropped from the kernel's page cache, and beside clients that read them from the disk. Medians over the rounds are printed, and the
range of the p99. Everything runs on loopback; the files are removed at the end.

The server has processor 0, and all clients have processor 1. What is measured is how long the server takes, so nothing on the side of
the clients may hold the normal load up: it runs before the readers (SCHED_FIFO, for which it has to be root), and each of its
connections waits a millisecond between an answer and the next request, so that it never needs the whole processor. A load without a
pause would be held up itself once a second (RT throttling), and would hold up what the kernel has to do for it. "steal" is the time
that the host of a virtual machine took away meanwhile: after the disk was busy or much memory was freed it may be long.
"""
import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time

from run import docroot, server

MS = {"us": 1e-3, "ms": 1, "s": 1e3}
FILES = 64
PAUSE = "function delay() return 1 end"
WAYS = ("alone", "beside files in memory", "alone, files dropped", "beside files on the disk")


def normal(a, port, secs):
    """Requests per second, p50 and p99 in milliseconds of the normal load."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(PAUSE)
        script.flush()
        command = ["taskset", "-c", "1", "chrt", "-f", "1", "wrk", "-t1", f"-c{a.c}", f"-d{secs}s", "--latency", "-s", script.name]
        o = subprocess.run([*command, f"http://127.0.0.1:{port}/index.html"], capture_output=True, text=True).stdout

    def ms(percent):
        found = re.search(percent + r"%\s+([\d.]+)(us|ms|s)", o)
        return float(found.group(1)) * MS[found.group(2)]

    return float(re.search(r"Requests/sec:\s+([\d.]+)", o).group(1)), ms("50"), ms("99")


def drop(paths):
    """Brings the files to the disk and out of the page cache."""
    for path in paths:
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fill(paths):
    """Brings the files into the page cache."""
    for path in paths:
        with open(path, "rb") as f:
            while f.read(1 << 20):
                pass


def start_readers(a, port, names):
    """Clients that read the files one after the other."""
    readers = []
    for i in range(a.clients):
        urls = [word for name in names[i::a.clients] for word in ("-o", "/dev/null", f"http://127.0.0.1:{port}/{name}")]
        readers.append(subprocess.Popen(["taskset", "-c", "1", "curl", "-s", *urls]))
    return readers


def disk_mib():
    """MiB that were read from all disks since the start."""
    with open("/proc/diskstats") as f:
        return sum(int(line.split()[5]) for line in f if not line.split()[2].startswith(("loop", "ram", "zram"))) / 2048


def stolen():
    """Seconds that the host has taken from the processors."""
    with open("/proc/stat") as f:
        return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def measure(a, way, port, paths):
    """One load: requests per second, p50, p99, MiB/s from the disk, and the share of the time that was stolen."""
    if "dropped" in way or "disk" in way:
        drop(paths)
    else:
        fill(paths)
    time.sleep(a.rest)
    # from memory they come faster than the load ends
    names = [os.path.basename(path) for path in paths] * (20 if "memory" in way else 1)
    readers = [] if "alone" in way else start_readers(a, port, names)
    disk, steal = disk_mib(), stolen()
    rps, p50, p99 = normal(a, port, a.d)
    row = rps, p50, p99, (disk_mib() - disk) / a.d, (stolen() - steal) / a.d / os.cpu_count()
    if readers and all(reader.poll() is not None for reader in readers):
        print("the readers were done before the end: use more --gib")
    for reader in readers:
        reader.kill()
        reader.wait()
    return row


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("servers")
    ap.add_argument("--gib", type=float, default=6)
    ap.add_argument("--clients", type=int, default=16)
    ap.add_argument("-c", type=int, default=32, help="connections of the normal load")
    ap.add_argument("-d", type=int, default=3, help="seconds of each load")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--rest", type=float, default=4, help="seconds before each load")
    a = ap.parse_args()
    with docroot(1024) as root:
        piece = os.urandom(1 << 20)
        paths = [f"{root}/big{i}.bin" for i in range(FILES)]
        for path in paths:
            with open(path, "wb") as f:
                for _ in range(int(a.gib * 1024 / FILES)):
                    f.write(piece)
        for n in a.servers.split(","):
            with server(n, root) as (p, port):
                normal(a, port, 1)
                rows = {way: [] for way in WAYS}
                for _ in range(a.rounds):
                    for way in WAYS:
                        rows[way].append(measure(a, way, port, paths))
                for way in WAYS:
                    rps, p50, p99, mib, steal = (statistics.median(column) for column in zip(*rows[way]))
                    all_p99 = sorted(row[2] for row in rows[way])
                    print(f"{n:9} {way:24} {rps:6.0f} req/s, p50 {p50:5.2f}, p99 {p99:6.2f} ms ({all_p99[0]:.2f} to {all_p99[-1]:.2f}); "
                          f"{mib:5.0f} MiB/s from the disk; steal {steal:.1%}", flush=True)


if __name__ == "__main__":
    main()
