"""GenMask L as in genmask_l.py, plus ReasonSeg's 239 training images, which give one mask in 32.

    python launch/prepare_data.py reasonseg --raw=REASONSEG --out=data    # and the data of genmask_l.py
    python launch/train.py --config=configs/genmask_l_reasonseg.py --workdir=runs/genmask_l_reasonseg
    python launch/evaluate.py --checkpoint=runs/genmask_l_reasonseg --config=configs/evaluate_reasonseg.py

Training uses the questions as they are; at evaluation the language model first describes the target.
"""

from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_l", __file__)
    config.name = "genmask_l_reasonseg"
    config.data.joint.reasonseg = 3 / 31
    return config
