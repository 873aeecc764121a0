"""Expected average precisions of a small case, from the published definition. Plain Python, written for this test.

Usage: python3 expected.py > case.json
A scene is a list of true (class, instance) per point, None for ignored points, and predictions
(class, score, first point, one past the last).
"""
import json, math, random

MIN = 100
OVERLAPS = [0.5 + 0.05 * i for i in range(9)]


def ap_of(scenes, cls, level):
    """scenes: list of (truth per point, predictions); cls None: all classes as one."""
    outcomes, missed, any_truth, any_prediction = [], 0, False, False
    for truth, predictions in scenes:
        own = lambda c: cls is None or c == cls
        names = sorted({t for t in truth if t is not None and own(t[0])})
        sets = {n: {i for i, t in enumerate(truth) if t == n} for n in names}
        void = {i for i, t in enumerate(truth) if t is None}
        preds = [(s, set(range(a, b))) for c, s, a, b in predictions if own(c) and b - a >= MIN]
        any_prediction |= bool(preds)
        large = [n for n in names if len(sets[n]) >= MIN]
        any_truth |= bool(large)
        iou = lambda n, p: len(sets[n] & p) / len(sets[n] | p)
        used = set()
        for n in large:
            hits = []
            for k, (s, p) in enumerate(preds):
                if k not in used and iou(n, p) > level:
                    if not hits:
                        used.add(k)
                    hits.append(s)
            if not hits:
                missed += 1
                continue
            outcomes.append((max(hits), 1))
            # All but the best of the hits are wrong.
            hits.remove(max(hits))
            outcomes += [(s, 0) for s in hits]
        for s, p in preds:
            if any(iou(n, p) > level for n in names):
                continue
            left_out = len(p & void) + sum(len(p & sets[n]) for n in names if len(sets[n]) < MIN)
            if left_out / len(p) <= level:
                outcomes.append((s, 0))
    if not any_truth:
        return None
    if not any_prediction or not outcomes:
        return 0.0
    total = sum(t for _, t in outcomes)
    points = []
    for s in sorted({s for s, _ in outcomes}):
        tp = sum(t for q, t in outcomes if q >= s)
        n = sum(1 for q, t in outcomes if q >= s)
        points.append((tp / n, tp / (total + missed) if total + missed else 0.0))
    points.append((1.0, 0.0))
    r = [points[0][1]] + [x for _, x in points] + [0.0]
    return sum(p * 0.5 * (r[i] - r[i + 2]) for i, (p, _) in enumerate(points))


def mean(values):
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def scores(scenes, classes):
    return {
        "ap": mean([ap_of(scenes, c, o) for c in classes for o in OVERLAPS]),
        "ap50": mean([ap_of(scenes, c, 0.5) for c in classes]),
        "ap25": mean([ap_of(scenes, c, 0.25) for c in classes]),
        "ap50_of_class": [ap_of(scenes, c, 0.5) for c in classes],
    }


def made(seed):
    rnd = random.Random(seed)
    truth, bounds = [], []
    for inst in range(rnd.randrange(6, 10)):
        cls = rnd.choice([0, 1, 2])
        size = rnd.choice([60, 90, 150, 200, 300, 420])
        bounds.append((cls, len(truth), len(truth) + size))
        truth += [(cls, inst)] * size
        truth += [None] * rnd.choice([0, 0, 40, 180])
    predictions = []
    for cls, a, b in bounds:
        for _ in range(rnd.choice([0, 1, 1, 1, 2])):
            slack = (b - a) // rnd.choice([3, 5, 12])
            lo = max(0, a + rnd.randrange(-slack, slack + 1))
            hi = min(len(truth), b + rnd.randrange(-slack, slack + 1))
            wrong = rnd.random() < 0.15
            predictions.append((rnd.choice([0, 1, 2]) if wrong else cls, rnd.randrange(1, 16) / 16, lo, max(hi, lo + 1)))
    for _ in range(2):
        lo = rnd.randrange(0, len(truth) - 150)
        predictions.append((rnd.choice([0, 1, 2, 3]), rnd.randrange(1, 16) / 16, lo, lo + rnd.randrange(80, 150)))
    return truth, predictions


scenes = [made(s) for s in (1, 2, 3)]
out = {
    "source": "expected.py beside this file, from the published definition of ScanNet's instance benchmark",
    "num_classes": 5,
    "scenes": [],
}
for truth, predictions in scenes:
    runs = []
    for t in truth:
        if runs and runs[-1][0] == t:
            runs[-1][1] += 1
        else:
            runs.append([t, 1])
    out["scenes"].append({
        "truth": [[-1, -1, n] if t is None else [t[0], t[1], n] for t, n in runs],
        "predictions": predictions,
    })
out["class_aware"] = scores(scenes, range(5))
out["class_agnostic"] = scores(scenes, [None])
text = json.dumps(out)
print(text)
