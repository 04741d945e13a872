r"""GenMask L by low-rank adapters, on one card of 24 GB: data and objective as in genmask_l.py, but the
1.42 B parameters of the DiT stay as they are, in bfloat16, beside 49 M that are trained.

    # Import the weights and prepare the data as in genmask_l.py; then encode once what is trained on (2.7 MB
    # for each of the masks), on a card that holds Qwen's 15.5 GB:
    python launch/encode_latents.py --config=configs/genmask_l_lora.py --out=data/genmask_l_512 \
        --instruction --dtype=bfloat16 --count=20000 --batch_size=8
    python launch/train.py --config=configs/genmask_l_lora.py --workdir=runs/genmask_l_lora
    python launch/evaluate.py --checkpoint=runs/genmask_l_lora --config=configs/evaluate_refcoco.py
    python launch/export_weights.py lora --from=runs/genmask_l_lora --out=weights/lora    # for diffusers

In training neither Qwen nor the VAE's encoder runs; the VAE (0.2 GB) stays on the card for validation. A
step has 4 parts of 8 masks and 8 images. The compiler needs 8.74 GiB of an RTX 4090's 24 GiB (and 1.19 GiB
are allowed for CUDA), and no step takes less than 8.8 s:

    python launch/compile.py --config=configs/genmask_l_lora.py --topology=rtx4090:1
"""

from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_l", __file__)
    config.name = "genmask_l_lora"
    config.model.lora_rank = 32
    config.data.latents = "data/genmask_l_512"
    config.data.num_workers = 4
    config.optimizer.update(learning_rate=3e-4, warmup_steps=200, weight_decay=0.0)
    config.loop.update(global_batch_size=64, grad_accumulation_steps=4, num_eval_examples=256)
    config.mesh.fsdp = 1
    return config
