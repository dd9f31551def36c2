"""What colluders and dropouts cost: error and ranking of mode `distributed` under the usual terms and under others.

python scripts/measure_terms.py [DATA]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from liberate.runs.train import train
from liberate.settings import resolve

EPSILONS, SEEDS = (1, 4, 8, 16), (42, 43, 44)
TERMS = {
    "10 % collude, 5 % drop out (default)": (),
    "10 % together, as one slack": ("privacy.max_colluders={half}", "privacy.max_dropouts=0.05"),
}
PEOPLE = {"ml-100k": 943, "ml-1m": 6040}


def measure(data: str) -> Iterator[tuple[str, str, int, float]]:
    """Yield the objective, the terms, epsilon and the mean over seeds of RMSE or NDCG@10."""
    half = -(-PEOPLE[Path(data).name] // 20)
    for objective, (terms, settings), epsilon in product(("explicit", "implicit"), TERMS.items(), EPSILONS):
        chosen = [setting.format(half=half) for setting in settings]
        values = [_value(data, objective, epsilon, seed, chosen) for seed in SEEDS]
        yield objective, terms, epsilon, mean(values)


def _value(data: str, objective: str, epsilon: int, seed: int, terms: list[str]) -> float:
    assignments = [
        f'data.source="{data}"',
        f'model.objective="{objective}"',
        "privacy.mode=distributed",
        f"privacy.epsilon={epsilon}",
        f"run.seed={seed}",
        *terms,
    ]
    with TemporaryDirectory() as folder:
        result = train(resolve(None, assignments, environment={}), Path(folder) / "run")
    return (result.rmse if objective == "explicit" else result.ndcg_at_10) or 0.0


def main() -> None:
    """Print a line for each mean, as soon as it is known."""
    for objective, terms, epsilon, value in measure(sys.argv[1] if len(sys.argv) > 1 else "ml-100k"):
        print(f"{objective:9} epsilon {epsilon:2}  {value:.4f}  {terms}", flush=True)


if __name__ == "__main__":
    main()
