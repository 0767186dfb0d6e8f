"""Time against size, drawn from what `benchmarks.candidates --out` wrote.

    python -m benchmarks.chart CANDIDATES.json --out docs/images/candidates.png

Both axes are logarithmic: a straight line of slope 1 is linear time.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(rows: list[dict], out: Path) -> None:
    """One line for each search; `rows` as in the JSON file."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(row["search"] for row in rows):
        here = [row for row in rows if row["search"] == name]
        sizes, seconds = [row["n_vectors"] for row in here], [row["seconds"] for row in here]
        axes.loglog(sizes, seconds, "o-", label=name)
        for row in here:
            note = f" {row['seconds']:.1f} s, recall {row['recall']:.3f}"
            axes.annotate(note, (row["n_vectors"], row["seconds"]), va="top", fontsize=8)
    first = rows[0]
    sizes = [min(r["n_vectors"] for r in rows), max(r["n_vectors"] for r in rows)]
    linear = [first["seconds"] * n / first["n_vectors"] for n in sizes]
    axes.loglog(sizes, linear, ":", color="grey", label="linear")
    axes.set(xlabel="vectors", ylabel="seconds on 2 cores", title="Candidate search")
    axes.margins(x=0.4)
    axes.legend()
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    draw(json.loads(arguments.measured.read_text()), arguments.out)


if __name__ == "__main__":
    main()
