"""GenMask XL: DiT (40 layers, width 5120) and VAE of Wan 2.1 14B, instructions by Qwen2.5-VL-7B, 512 px.

    python launch/import_weights.py wan --from=Wan2.1-T2V-14B-Diffusers --out=weights/wan_xl --text_dim=3584
    python launch/import_weights.py qwen --from=Qwen2.5-VL-7B-Instruct --out=weights/qwen_7b
    python launch/train.py --config=configs/genmask_xl.py --workdir=runs/genmask_xl

The data are the same as for genmask_l.py, which shows how to prepare them.
14.29 B parameters. With AdamW and EMA, the float32 state takes 229 GB. The mesh shards it, and Qwen, over 32
devices.
"""

from genmask_jax.config import DIT_SIZES
from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_l", __file__)
    config.name = "genmask_xl"
    config.vae = config.init = "weights/wan_xl"
    config.model.update(DIT_SIZES["xl"], remat="all")
    config.optimizer.learning_rate = 5e-5
    config.mesh.fsdp = 32
    return config
