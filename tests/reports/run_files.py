"""The files of a run, made by hand: every one that a report reads."""

from __future__ import annotations

import base64
import io
import json
import math

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def drawing(seed: int, size: int = 72) -> bytes:
    """A PNG with a few shapes on a transparent ground."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, w, h = rng.integers(4, size // 2, 4).tolist()
        colour = (*rng.integers(30, 240, 3).tolist(), 255)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
    stored = io.BytesIO()
    image.save(stored, "PNG")
    return stored.getvalue()


def base64_drawing(seed: int) -> str:
    return base64.b64encode(drawing(seed)).decode()


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_history(workdir, steps=3000):
    rng = np.random.default_rng(0)
    lines = []
    for step in range(10, steps + 1, 10):
        fall = math.exp(-step / 900)
        line = {
            "step": step,
            "examples": step * 128,
            "seconds": step * 0.11,
            "train/loss": 0.4 + 5 * fall + 0.2 * rng.random(),
            "train/contrastive/loss": 0.3 + 4 * fall + 0.2 * rng.random(),
            "train/classification/loss": 0.05 + fall + 0.05 * rng.random(),
            "train/classification/accuracy": 1 - fall * 0.9,
            "train/learning_rate": 1e-3 * min(step / 300, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
            "train/gradient_norm": 3 * fall + 0.3 + 0.3 * rng.random(),
            "train/examples_per_second": 1150 + 60 * rng.random(),
        }
        if step % 500 == 0:
            for way, factor in (("text_to_image", 1.0), ("image_to_text", 0.95)):
                for k in (1, 5, 10):
                    line[f"retrieval/{way}/R@{k}"] = factor * (1 - fall) * (0.3 + 0.055 * k)
                line[f"retrieval/{way}/median_rank"] = 1 + round(150 * fall)
            line["classification/digit/accuracy"] = 0.97 - 0.8 * fall
            line["classification/digit/f1_macro"] = 0.96 - 0.8 * fall
        lines.append(json.dumps(line) + "\n")
    (workdir / "metrics.jsonl").write_text("".join(lines))
    return json.loads(lines[-1])


def class_rows(labels, matrix):
    found, predicted, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return [
        {
            "name": label,
            "precision": found[i] / max(predicted[i], 1),
            "recall": found[i] / max(support[i], 1),
            "f1": 2 * found[i] / max(predicted[i] + support[i], 1),
            "support": int(support[i]),
            "auroc": None,
        }
        for i, label in enumerate(labels)
    ]


def write_artifacts(workdir, evil=EVIL):
    rng = np.random.default_rng(1)
    matrix = rng.integers(0, 3, (10, 10)) + np.diag(rng.integers(60, 99, 10))
    matrix[4, 9], matrix[7, 1] = 21, 14
    labels = [*CLASSES[:9], evil]
    artifacts = {
        "classification_digit_confusion_matrix": {
            "kind": "confusion_matrix",
            "labels": labels,
            "matrix": matrix.tolist(),
            "classes": class_rows(labels, matrix),
        },
        "classification_digit_calibration": {
            "kind": "calibration",
            "confidence": np.linspace(0.05, 0.95, 10).tolist(),
            "accuracy": (np.linspace(0.05, 0.95, 10) ** 1.3).tolist(),
            "count": [0, 1, 3, 8, 11, 14, 22, 40, 90, 800],
            "ece": 0.0312,
        },
        "gallery": {
            "kind": "retrieval_gallery",
            "data": "test",
            "queries": [
                {
                    "text": text,
                    "example_id": i,
                    "rank": i + 1,
                    "results": [
                        {"example_id": i * 7 + k + 1, "score": 0.81 - 0.06 * k, "correct": i < 2 and k == i}
                        for k in range(6)
                    ],
                }
                for i, text in enumerate(["a red circle", evil, "ein grüner Kreis im Quadrat"])
            ],
        },
        "rebuilt": {
            "kind": "reconstruction",
            "examples": [
                {"original": base64_drawing(i), "reconstruction": base64_drawing(i)} for i in range(3)
            ],
        },
        "attention": {
            "kind": "attention",
            "examples": [
                {
                    "image": base64_drawing(i),
                    "tokens": ["a", "red", "circle", evil],
                    "weights": (rng.random((4, 6, 6)) ** 6).tolist(),
                }
                for i in range(2)
            ],
        },
    }
    for name, artifact in artifacts.items():
        write_json(workdir / "artifacts" / f"{name}.json", artifact)
