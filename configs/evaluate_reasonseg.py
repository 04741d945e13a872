"""ReasonSeg, val and test, in the paper's two stages: Qwen describes the target, then GenMask segments it.

    python launch/evaluate.py --checkpoint=runs/genmask_l_reasonseg --config=configs/evaluate_reasonseg.py

--config.reason=False segments from the question directly, in one stage.
"""

from genmask_jax.config import EvaluationConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        EvaluationConfig(
            benchmarks=("reasonseg:val", "reasonseg:test"),
            reason=True,
        )
    )
