#!/usr/bin/env python3
"""Train a one-hidden-layer network on the UCI handwritten digits, in plain Python.

Prints one JSON line per epoch and a final one with the result. A diverging run is an
answer too: it is reported and ends normally with the accuracy it had.
"""

import argparse
import gzip
import json
import math
import os
import random
import time
from operator import itemgetter, mul

CLASSES = 10
BATCH = 16
MOMENTUM = 0.9
SPLIT_SEED = 1797  # the held-out fifth is the same in every run, so accuracies compare
DEFAULTS = {"lr": 0.05, "hidden": 32, "epochs": 10, "seed": 1}


def settings():
    """Defaults, overridden by params.json (written by a sweep), overridden by flags."""
    values = dict(DEFAULTS)
    if os.path.exists("params.json"):
        with open("params.json", encoding="utf-8") as file:
            values.update(json.load(file))
    parser = argparse.ArgumentParser(description="train a small network on handwritten digits")
    parser.add_argument("--lr", type=float, help="learning rate (default %(default)s)")
    parser.add_argument("--hidden", type=int, help="hidden units (default %(default)s)")
    parser.add_argument("--epochs", type=int, help="passes over the data (default %(default)s)")
    parser.add_argument("--seed", type=int, help="first weights and order (default %(default)s)")
    parser.set_defaults(**{name: values[name] for name in DEFAULTS})
    args = parser.parse_args()
    if args.hidden < 1 or args.epochs < 1 or not args.lr > 0:
        parser.error("lr, hidden and epochs must be positive")
    return args


def load():
    """Rows of (pixels in 0..1, picker of the inked pixels, their values, label), split in two."""
    path = "digits.csv.gz"
    if not os.path.exists(path):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), path)
    rows = []
    with gzip.open(path, "rt", encoding="ascii") as file:
        for line in file:
            *pixels, label = map(int, line.split(","))
            x = [value / 16 for value in pixels]
            inked = [i for i, value in enumerate(pixels) if value]
            # Half of all pixels are blank: a forward pass reads only the inked ones.
            rows.append((x, itemgetter(*inked), [x[i] for i in inked], label))
    random.Random(SPLIT_SEED).shuffle(rows)
    cut = len(rows) * 4 // 5
    return rows[:cut], rows[cut:]


class Network:
    """pixels -> ReLU hidden layer -> softmax over the ten digits; SGD with momentum."""

    def __init__(self, inputs, hidden, rng):
        def layer(rows, columns):
            scale = math.sqrt(2 / columns)
            return [[rng.gauss(0, scale) for _ in range(columns)] for _ in range(rows)]

        self.w1, self.b1 = layer(hidden, inputs), [0.0] * hidden
        self.w2, self.b2 = layer(CLASSES, hidden), [0.0] * CLASSES
        self.v1 = [[0.0] * inputs for _ in range(hidden)]
        self.v2 = [[0.0] * hidden for _ in range(CLASSES)]
        self.c1, self.c2 = [0.0] * hidden, [0.0] * CLASSES  # the biases' velocities

    def parameters(self):
        return len(self.w1) * (len(self.w1[0]) + 1) + CLASSES * (len(self.w1) + 1)

    def forward(self, pick, ink):
        """The hidden activations and the ten scores of one image."""
        h = [sum(map(mul, pick(row), ink), bias) for row, bias in zip(self.w1, self.b1)]
        # `x <= 0` rather than max(): a NaN must pass through and be noticed.
        h = [0.0 if x <= 0.0 else x for x in h]
        return h, [sum(map(mul, row, h), bias) for row, bias in zip(self.w2, self.b2)]

    def train_batch(self, batch, lr):
        """One step on the mean gradient of `batch`; returns the summed loss."""
        loss = 0.0
        hidden, errors, deltas = [], [], []
        columns = list(zip(*self.w2))
        for _, pick, ink, label in batch:
            h, scores = self.forward(pick, ink)
            top = max(scores)
            powers = [math.exp(s - top) for s in scores]
            total = sum(powers)
            loss += math.log(total) + top - scores[label]
            error = [p / total for p in powers]
            error[label] -= 1.0
            hidden.append(h)
            errors.append(error)
            deltas.append([sum(map(mul, error, col)) if x else 0.0 for x, col in zip(h, columns)])
        rate = lr / len(batch)
        images = [row[0] for row in batch]
        descend(self.w2, self.v2, self.b2, self.c2, zip(*errors), hidden, rate)
        descend(self.w1, self.v1, self.b1, self.c1, zip(*deltas), images, rate)
        return loss

    def accuracy(self, rows):
        right = 0
        for _, pick, ink, label in rows:
            scores = self.forward(pick, ink)[1]
            right += scores.index(max(scores)) == label
        return right / len(rows)


def descend(weights, velocities, biases, bias_velocities, deltas, inputs, rate):
    """Momentum step of one layer; `deltas` yields, per unit, its error on each input."""
    for unit, delta in enumerate(deltas):
        step = [MOMENTUM * v for v in velocities[unit]]
        # Units that were off for an image learn nothing from it; the rest go two by two,
        # because one pass over the row for two images costs little more than for one.
        active = [(rate * d, x) for d, x in zip(delta, inputs) if d]
        if len(active) % 2:
            a, p = active.pop()
            step = [s - a * x for s, x in zip(step, p)]
        for (a, p), (b, q) in zip(active[::2], active[1::2]):
            step = [s - a * x - b * y for s, x, y in zip(step, p, q)]
        velocities[unit] = step
        weights[unit] = [w + s for w, s in zip(weights[unit], step)]
        bias_velocities[unit] = MOMENTUM * bias_velocities[unit] - rate * sum(delta)
        biases[unit] += bias_velocities[unit]


def report(**fields):
    print(json.dumps(fields, allow_nan=False), flush=True)


def main():
    args = settings()
    started = time.monotonic()
    train, test = load()
    rng = random.Random(args.seed)
    network = Network(len(train[0][0]), args.hidden, rng)
    accuracy, epoch, diverged = 0.0, 0, False
    while epoch < args.epochs and not diverged:
        epoch += 1
        rng.shuffle(train)
        # Steps shrink evenly, so that the last epochs settle rather than wander.
        lr = args.lr * (1 - (epoch - 1) / args.epochs)
        loss = 0.0
        for start in range(0, len(train), BATCH):
            loss += network.train_batch(train[start:start + BATCH], lr)
            if not math.isfinite(loss):
                diverged = True
                break
        accuracy = round(network.accuracy(test), 4)
        # JSON has no infinity: a loss that left the numbers is reported as null.
        shown = None if diverged else round(loss / len(train), 4)
        report(epoch=epoch, loss=shown, accuracy=accuracy)
    report(accuracy=accuracy, epochs=epoch, loss=shown, diverged=diverged,
           seconds=round(time.monotonic() - started, 3), parameters=network.parameters())


if __name__ == "__main__":
    main()
