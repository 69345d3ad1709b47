#!/usr/bin/env python3
"""Runner: an even grid over the square, as fine as the budget allows."""

import json
import math
import os
import re


def himmelblau(x, y):
    """Four valleys whose lowest points are all exactly 0."""
    return (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2


def main():
    found = re.search(r"(\d+) evaluations", os.environ.get("PRISM_TASK", ""))
    budget = int(found.group(1)) if found else 1600
    side = math.isqrt(budget)
    axis = [-5 + 10 * (i + 0.5) / side for i in range(side)]
    best = float("inf")
    for row, y in enumerate(axis, start=1):
        best = min(best, min(himmelblau(x, y) for x in axis))
        if row % 10 == 0 or row == side:
            print(json.dumps({"best": best, "evaluations": row * side}), flush=True)


if __name__ == "__main__":
    main()
