"""gRefCOCO: expressions for one object, several or none.

    python launch/evaluate.py --checkpoint=DIR --benchmark=grefcoco:unc:val --choose_no_target
    python launch/evaluate.py --checkpoint=DIR --config=configs/evaluate_grefcoco.py \
        --no_target_area=AREA --no_target_score=SCORE

The first finds the no-target thresholds with the best gIoU on val; the second scores with them.
"""

from genmask_jax.config import EvaluationConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        EvaluationConfig(
            benchmarks=("grefcoco:unc:val", "grefcoco:unc:testA", "grefcoco:unc:testB"),
        )
    )
