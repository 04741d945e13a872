"""Encodes a dataset's images and masks with the VAE once, instead of in every training step.

    python launch/encode_latents.py --config=configs/genmask_stamps.py --out=data/stamps_latents
    python launch/encode_latents.py --config=genmask_tiny --config.vae=refershapes --count=500 --out=data/tiny
    python launch/train.py --config=configs/genmask_stamps.py --config.data.latents=data/stamps_latents ...

The config names the data and the VAE. Training rejects a cache of different data or a different VAE.
--instruction also caches the output of a frozen instruction encoder (Qwen, MiniLM) for the texts and their
images, and for the config's loop.num_eval_examples validation examples. Training then does not load the
encoder, and rejects a cache of a different encoder.
For the mixture refcoco_joint, --count is divided over the datasets by their weights (config.data.joint).
Several machines can share the work: --num_shards=4 and --shard=0, 1, 2, 3. With several JAX processes, each
encodes one shard. After an interruption, rerun the command; complete shards are skipped.
"""

from absl import flags
from ml_collections import config_flags

from genmask_jax import cli
from genmask_jax.parameters.files import DTYPES
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import need_local

CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="A training config: a file, or a name such as genmask_tiny."
)
OUT = flags.DEFINE_string("out", None, "Directory to write to.", required=True)
COUNT = flags.DEFINE_integer("count", None, "Number of examples per task; all by default.", lower_bound=1)
INSTRUCTION = flags.DEFINE_bool(
    "instruction", False, "Also cache the output of the frozen instruction encoder."
)
DTYPE = flags.DEFINE_enum("dtype", "float32", list(DTYPES), "Dtype of the stored latents and embeddings.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images per batch on this host.", lower_bound=1)
NUM_SHARDS = flags.DEFINE_integer(
    "num_shards", None, "Number of shards; one per process by default.", lower_bound=1
)
SHARD = flags.DEFINE_integer("shard", None, "Shard to encode; the process index by default.", lower_bound=0)
cli.define_host_flags()


def main() -> None:
    import jax
    from etils import epath

    from genmask_jax.checkpoints.runs import load_vae
    from genmask_jax.config import TrainConfig
    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.data.latents.encode import encode_shard
    from genmask_jax.data.sources import texts
    from genmask_jax.instruction import factory

    need_local(OUT.value, "--out")
    config = from_config_dict(TrainConfig, CONFIG.value, file=cli.config_flag())
    shard, num_shards = SHARD.value, NUM_SHARDS.value
    if shard is None and num_shards is None:
        shard, num_shards = jax.process_index(), jax.process_count()
    if shard is None or num_shards is None:
        raise UserError("--shard and --num_shards: give both flags or neither")
    if shard >= num_shards:
        raise UserError(f"--shard={shard} must be from 0 to {num_shards - 1} (--num_shards={num_shards})")
    encoder = None
    if INSTRUCTION.value:
        encoder = factory.build(config.instruction, epath.Path(OUT.value) / "instruction", texts(config.data))
    identity = encode_shard(
        config.data,
        load_vae(config.vae),
        epath.Path(OUT.value),
        instruction=encoder,
        compute_dtype=config.compute_dtype,
        dtype=DTYPE.value,
        count=COUNT.value,
        num_eval_examples=config.loop.num_eval_examples,
        shard=shard,
        num_shards=num_shards,
        batch_size=BATCH_SIZE.value,
    )
    print(
        f"{OUT.value}: {identity.segment} masks with their images, {identity.generate} images, "
        f"in {identity.num_shards} shard(s), of VAE {identity.vae[:12]}; "
        f"{cli.as_called('train on it with launch/train.py')} --config.data.latents={OUT.value}"
    )


def start() -> None:
    """The command."""
    flags.mark_flag_as_required("config")
    cli.run(main)


if __name__ == "__main__":
    start()
