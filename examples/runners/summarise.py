#!/usr/bin/env python3
"""Aggregate: rank the runners by what they found, and name those that found nothing."""

import json
import sys


def found(beam):
    """The value a beam ended with, or None if it ended without one."""
    best = (beam.get("result") or {}).get("best")
    return best if isinstance(best, (int, float)) else None


def main():
    with open("results.json", encoding="utf-8") as file:
        beams = json.load(file)
    ranked = sorted((b for b in beams if found(b) is not None), key=found)
    without = [b["runner"] for b in beams if found(b) is None]
    for place, beam in enumerate(ranked, start=1):
        print(f"{place}. {beam['runner']}: {found(beam):.3g}")
    for name in without:
        print(f"-  {name}: no result")
    if not ranked:
        sys.exit("no runner gave a result, so there is nothing to rank")
    print(json.dumps({
        "winner": ranked[0]["runner"],
        "best": found(ranked[0]),
        "evaluations": sum(b["result"].get("evaluations", 0) for b in ranked),
        "ranking": [b["runner"] for b in ranked],
        "without_result": without,
    }))


if __name__ == "__main__":
    main()
