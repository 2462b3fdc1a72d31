"""`python -m classifiers prepare|train|export|calibrate|evaluate`: the pipeline, one file a step.

Each step reads what the one before it wrote under --work. Only train and export import torch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from classifiers.bundle import BundleError
from classifiers.rows import DataError


def main(arguments: list[str] | None = None) -> int:
    """Run one step; returns the exit status (2 for bad flags or missing data, with one sentence)."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    bundle = options.bundle or options.work / "bundle"
    try:
        match options.step:
            case "prepare":
                from classifiers.prepare import prepare  # noqa: PLC0415 - each step loads only what it needs

                prepare(options.data, options.work, options.seed, console)
            case "train":
                from classifiers.train import Plan, train  # noqa: PLC0415 - imports torch

                plan = Plan(options.seed, options.layers, options.epochs, start=options.start)
                train(options.work, plan, console)
            case "export":
                from classifiers.export import export  # noqa: PLC0415 - imports torch

                export(options.work, bundle, console)
            case "calibrate":
                from classifiers.calibrate import calibrate  # noqa: PLC0415 - each step loads only what it needs

                calibrate(options.work, bundle, console)
            case _:
                from classifiers.evaluate import evaluate  # noqa: PLC0415 - each step loads only what it needs

                evaluate(options.work, bundle, console)
    except (DataError, BundleError) as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 2
    except ModuleNotFoundError as error:
        sentence = f"{error.name} is not installed; this step needs the [train] extra"
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m classifiers", description=__doc__)
    parser.add_argument("step", choices=["prepare", "train", "export", "calibrate", "evaluate"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the public sources")
    parser.add_argument("--work", type=Path, default=Path(".work/classifiers"), help="everything written")
    parser.add_argument("--bundle", type=Path, help="the bundle folder (default: WORK/bundle)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, default=3, choices=range(1, 7), help="encoder layers (train)")
    parser.add_argument("--epochs", type=float, default=3.0, help="passes over the pairs (train)")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint, at half the rate (train)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
