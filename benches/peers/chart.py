"""Draws the figures of benches/peers.sh as an SVG picture.

    python3 benches/peers/chart.py --caption 'machine, date' RUN.json... > docs/peers.svg

The figures of a run come from `benches/peers.sh --json RUN.json`. Several runs are combined.
"""

import argparse
import json
from html import escape
from pathlib import Path
from statistics import median

NAMES = {
    "bare": "minimal loop",
    "ours": "dicom-export",
    "rclone": "rclone",
    "azcopy": "AzCopy",
    "s5cmd": "s5cmd",
    "python": "Python SDK",
}
COLOURS = {
    "bare": "#8a94a0",
    "ours": "#1f6feb",
    "rclone": "#c9862b",
    "azcopy": "#3f9142",
    "s5cmd": "#3f9142",
    "python": "#7a5fb5",
}
DATA = {
    "small": "20,000 files of 20 kB",
    "ct": "4,000 files of 526 kB",
    "wsi": "one file of 2 GiB",
}

WIDTH, LEFT, BAR, GAP, HEAD = 760, 120, 20, 6, 34
# The space for the longest label after the longest bar.
LABEL = 250


def medians(runs: list[dict], kind: str, tool: str) -> dict[str, float]:
    rounds = [cost for run in runs for cost in run[kind][tool]]
    return {what: median(cost[what] for cost in rounds) for what in ("wall", "cpu", "peak")}


def text(x: float, y: float, content: str, style: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(content)}</text>'


def draw(runs: list[dict], caption: str) -> str:
    kinds = [kind for kind in DATA if kind in runs[0]]
    tools = [tool for tool in NAMES if tool in runs[0][kinds[0]]]
    figures = {(kind, tool): medians(runs, kind, tool) for kind in kinds for tool in tools}
    scale = (WIDTH - LEFT - LABEL) / max(figure["wall"] for figure in figures.values())
    parts, y = [], 8.0
    for kind in kinds:
        y += HEAD
        parts.append(text(8, y - 8, DATA[kind], 'font-weight="bold"'))
        for tool in tools:
            figure = figures[kind, tool]
            length = max(2, figure["wall"] * scale)
            label = f"{figure['wall']:.2f} s, {figure['cpu']:.2f} s of CPU, {figure['peak']:.0f} MiB"
            parts.append(text(LEFT - 8, y + 15, NAMES[tool], 'text-anchor="end"'))
            parts.append(f'<rect x="{LEFT}" y="{y:.0f}" width="{length:.0f}" height="{BAR}" fill="{COLOURS[tool]}"/>')
            parts.append(text(LEFT + length + 8, y + 15, label))
            y += BAR + GAP
    y += 28
    parts.append(text(8, y, caption, 'font-size="12" fill="#57606a"'))
    height = y + 14
    title = "Wall time of an export to a server that discards the data, with CPU time and peak memory"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">',
            f"<title>{title}</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--caption", required=True, help="the machine and the date")
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    print(draw([json.loads(run.read_text()) for run in options.runs], options.caption), end="")


if __name__ == "__main__":
    main()
