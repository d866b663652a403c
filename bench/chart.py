#!/usr/bin/env python3
"""Draws the chart of the README from a file of results: processor time of the server for a request, beside other servers.

    python3 bench/chart.py bench/results/2026-11-26-evening.md docs/src/images/speed.svg

It takes each block that `bench.py` printed with more than one server, in the order of the file, and leaves out those with `chart: no`
in the line before, and the floors, which are no servers. What is drawn is the column `cpu us/req`, each block to its own scale: shorter is better.
"""
import re
import sys
from html import escape

ROW, GAP, TITLE, NAME, BAR, WIDTH = 18, 14, 20, 96, 420, 620
STYLE = """text{font:13px system-ui,sans-serif;fill:#18282f}.q{fill:#4b6068}.b{fill:#9db4b9}.m{fill:#c67a3c}
@media(prefers-color-scheme:dark){text{fill:#dde6e5}.q{fill:#9aadb2}.b{fill:#4a626b}.m{fill:#eab07c}}"""


def blocks(text):
    """(title, [(server, microseconds)]) of each block."""
    found, skip = [], False
    for block in re.split(r"(?m)^(?=\$ |chart: no)", text):
        if block.startswith("chart: no"):
            skip = True
            continue
        title = re.search(r"(?m)^\$ .*\n(.+ connections x .+)$", block)
        rows = re.findall(r"(?m)^(\w+) +\d+ +([\d.]+) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+", block)
        if title and len(rows) > 1 and not skip:
            what = title.group(1).split(", h1")[0].replace(" connections x 1", " connections")
            close = ", a connection each" if ", close" in title.group(1) else ""
            found.append((what + close, [(n, float(us)) for n, us in rows if not n.startswith("floor_")]))
        skip = False
    return found


def main():
    source, target = sys.argv[1:]
    with open(source) as f:
        data = blocks(f.read())
    out, y = [], 4
    for title, rows in data:
        y += TITLE
        out.append(f'<text x="0" y="{y - 6}">{escape(title)}</text>')
        most = max(us for _, us in rows)
        for name, us in rows:
            width = max(2, us / most * BAR)
            shown = f"{us:.1f}" if us < 100 else f"{us:.0f}"
            out.append(f'<text class="q" x="{NAME - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
                       f'<rect class="{"m" if name == "millpond" else "b"}" x="{NAME}" y="{y + 2}" width="{width:.0f}" height="{ROW - 5}" rx="2"/>'
                       f'<text class="q" x="{NAME + width + 6:.0f}" y="{y + 13}">{shown}</text>')
            y += ROW
        y += GAP
    with open(target, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
                f'aria-label="Processor time of the server for a request, in microseconds"><style>{STYLE}</style>\n' + "\n".join(out) + "\n</svg>\n")


if __name__ == "__main__":
    main()
