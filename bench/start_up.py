"""Start-up: `expunge --help` against an empty typer programme (goal: at most 4 x), and `import expunge` without torch.

Processes are started in turn, A B A B; processor seconds are compared. Run: python bench/start_up.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

EMPTY = "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None: ...\napp()"
COMMANDS = {
    "empty typer programme": [sys.executable, "-c", EMPTY, "--help"],
    "expunge --help": [sys.executable, "-m", "expunge", "--help"],
    "import expunge": [sys.executable, "-c", "import expunge"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def processor_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    repeats = 3 if arguments.quick else 11
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(repeats + 1):
        for name, command in COMMANDS.items():
            used = processor_seconds(command)
            if turn:  # the first turn warms the file cache
                times[name].append(used)
    result = {name: statistics.median(values) for name, values in times.items()}
    ratio = result["expunge --help"] / result["empty typer programme"]
    loaded = subprocess.run(
        [sys.executable, "-c", "import expunge, sys; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    for name, value in result.items():
        print(f"{name:<24} {value:6.3f} s")
    print(f"expunge --help / empty programme: {ratio:.2f} (goal at most 4); torch loaded by import expunge: {loaded}")
    if arguments.json:
        print(json.dumps({**result, "ratio": ratio, "torch_loaded": loaded == "True"}))


if __name__ == "__main__":
    main()
