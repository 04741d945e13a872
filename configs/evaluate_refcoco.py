"""The RefCOCO family: all splits that papers report, including val.

    python launch/evaluate.py --checkpoint=runs/genmask_l --config=configs/evaluate_refcoco.py

57,457 expressions, one forward pass each. --config.path is for data elsewhere than the run's own.
"""

from genmask_jax.config import EvaluationConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        EvaluationConfig(
            benchmarks=(
                "refcoco:unc:val",
                "refcoco:unc:testA",
                "refcoco:unc:testB",
                "refcocoplus:unc:val",
                "refcocoplus:unc:testA",
                "refcocoplus:unc:testB",
                "refcocog:umd:val",
                "refcocog:umd:test",
            ),
        )
    )
