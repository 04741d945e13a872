"""Scores a trained baseline on held-out examples of its dataset, or on benchmarks.

    python baselines/evaluate.py --checkpoint=runs/unet --split=test --count=512 --uncertainty=1

Flags and files are those of launch/evaluate.py. Those of noises, passes and generated images have no effect.
"""

from absl import flags

from genmask_jax import cli
from genmask_jax.commands import evaluate

flags.adopt_module_key_flags(evaluate)


def main() -> None:
    from baseline import BaselineConfig, BaselineScoring

    evaluate.evaluate(BaselineConfig, BaselineScoring)


if __name__ == "__main__":
    cli.run(main)
