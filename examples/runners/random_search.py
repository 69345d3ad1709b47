#!/usr/bin/env python3
"""Runner: points drawn at random, the best one kept."""

import json
import os
import random
import re


def himmelblau(x, y):
    """Four valleys whose lowest points are all exactly 0."""
    return (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2


def main():
    found = re.search(r"(\d+) evaluations", os.environ.get("PRISM_TASK", ""))
    budget = int(found.group(1)) if found else 1600
    rng = random.Random(1)
    best = float("inf")
    for spent in range(1, budget + 1):
        best = min(best, himmelblau(rng.uniform(-5, 5), rng.uniform(-5, 5)))
        if spent % 200 == 0 or spent == budget:
            print(json.dumps({"best": best, "evaluations": spent}), flush=True)


if __name__ == "__main__":
    main()
