"""Copies a VAE, with latents that are FACTOR times as large, to see how noise levels depend on their scale.

    python baselines/rescale_vae.py --vae=refershapes --factor=0.25 --out=runs/vae_quarter

--out can be the `config.vae` of a training. Images are encoded and decoded as before.
"""

from absl import flags

from genmask_jax import cli
from genmask_jax.utils.errors import ArgumentError

VAE = flags.DEFINE_string("vae", None, "Directory with a VAE, or a name such as refershapes.", required=True)
FACTOR = flags.DEFINE_float("factor", None, "Factor on the latents.", required=True)
OUT = flags.DEFINE_string("out", None, "New directory for the VAE.", required=True)


def main() -> None:
    from genmask_jax.checkpoints.runs import load_vae, save_vae
    from genmask_jax.pretrained import directory_of
    from genmask_jax.utils.paths import need_makeable

    if FACTOR.value <= 0:
        raise ArgumentError("factor", f"={FACTOR.value} must be positive")
    out = need_makeable(OUT.value, "--out")
    config, state = load_vae(directory_of(VAE.value, "vae"))
    deviations = state["latents_std"]
    deviations[...] = deviations[...] / FACTOR.value
    save_vae(out, config, state)
    print(f"wrote {OUT.value}")


if __name__ == "__main__":
    cli.run(main)
