#!/usr/bin/env python3
"""Measure the words of one line and print the figures as one JSON line."""

import json
import os
import re
import sys

line = os.environ.get("PRISM_MAP_ITEM") or " ".join(sys.argv[1:])
words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", line)
if not words:
    sys.exit("no words: give a line in PRISM_MAP_ITEM or as arguments")
lengths = [len(word) for word in words]
print(json.dumps({
    "words": len(words),
    "letters": sum(lengths),
    "mean_length": round(sum(lengths) / len(words), 2),
    "longest": max(words, key=len),
}))
