"""Computes every score of `launch/evaluate.py` for 1, 9 and 17 examples, on any number of processes.

    python shared_scores.py FLAGS --grefcoco=DIRECTORY

FLAGS are flags of launch/evaluate.py for a dataset of classes. The command runs with these flags, and again
with the benchmark reasonseg:val under --data. Each process writes its results to WORKDIR/scores_N.json.
"""

import dataclasses
import json
from typing import Any

import jax
from absl import flags
from etils import epath

from genmask_jax import cli
from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.commands import evaluate
from genmask_jax.config import LoopConfig, TrainConfig, VAETrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.data.prepared import records
from genmask_jax.data.sources import generate_source, label_maps, scored_source
from genmask_jax.evaluation.benchmarks import Benchmark, evaluate_benchmark, open_benchmark
from genmask_jax.evaluation.generation import evaluate_generation, evaluate_prompts
from genmask_jax.evaluation.label_maps import evaluate_label_maps
from genmask_jax.evaluation.segmentation import evaluate_segmentation
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.sharding import MeshConfig, make_mesh
from genmask_jax.training.vae import VAETask

SIZES = (1, 9, 17)
GREFCOCO = flags.DEFINE_string("grefcoco", None, "Directory of the prepared gRefCOCO.")


class FirstItems(records.Items):
    """The first `count` items."""

    count = 0

    def __len__(self):
        return min(self.count, super().__len__())


@dataclasses.dataclass(frozen=True)
class ShortBenchmark(Benchmark):
    """The first `count` expressions of a benchmark."""

    count: int = 0

    def items(self):
        first_only = self.protocol == "reasonseg"
        items = FirstItems(self.directory, self.split, "expressions", first_only=first_only)
        items.count = self.count
        return items


def main() -> None:
    evaluate.main()
    flags.FLAGS.benchmark = ["reasonseg:val"]
    evaluate.main()
    checkpoint, config = evaluate.CHECKPOINT.value, from_config_dict(TrainConfig, evaluate.CONFIG.value)
    networks, _, _ = load(checkpoint, mesh=make_mesh(MeshConfig(fsdp=evaluate.FSDP.value)))
    sampler, size = config.sampler, evaluate.BATCH_SIZE.value
    segmenter = MaskSampler(networks, sampler, batch_size=size)
    generator = ImageSampler(networks, sampler, batch_size=size)
    scenes = dataclasses.replace(config.data, name="refershapes", generate="")
    prompts = generate_source(scenes, "test")
    scores = {}
    for count in SIZES:
        source = scored_source(scenes, "test")
        masks = evaluate_segmentation(segmenter, source, count, swapped=True, absent=True, keep=2)
        seconds = masks.metrics.pop("seconds_per_image")
        assert seconds is None or seconds > 0
        maps = evaluate_label_maps(segmenter, label_maps(config.data, "val"), 0.5, count, 0)
        shapes, images, _ = evaluate_generation(generator, prompts, count)
        scores[count] = {
            "scenes": [masks.metrics, masks.examples, float(masks.probabilities.astype(float).sum())],
            "label maps": maps.metrics,
            "reasonseg": benchmark(segmenter, evaluate.DATA.value, "reasonseg", count),
            "grefcoco": benchmark(segmenter, GREFCOCO.value, "grefcoco:unc", count),
            "images": [shapes, evaluate_prompts(images, prompts)],
            "levels": images.astype(int).sum((1, 2, 3)).tolist(),
            "vae": vae(checkpoint, scenes, networks.mesh, count),
        }
    out = epath.Path(evaluate.WORKDIR.value) / f"scores_{jax.process_index()}.json"
    out.write_text(json.dumps(scores))


def benchmark(segmenter: MaskSampler, root: str, name: str, count: int) -> list[Any]:
    opened = open_benchmark(root, name, "val")
    result = evaluate_benchmark(segmenter, ShortBenchmark(**vars(opened), count=count), keep=2)
    assert len(result.rows) == count
    return [result.metrics, result.rows, [row["iou"] for row in result.sheet]]


def vae(directory: str, data: Any, mesh: Any, count: int) -> dict[str, float]:
    """The validation scores of a VAE whose parameters are sharded over the mesh."""
    config = VAETrainConfig("vae", load_vae(directory)[0], init=directory, data=data)
    task = VAETask(dataclasses.replace(config, loop=LoopConfig(num_eval_examples=count)), mesh)
    params = jax.device_get(task.start(jax.jit(task.init_params)(jax.random.key(0))))
    params = jax.device_put(params, task.plan.shardings(params))
    return task.evaluate(params, count, epath.Path(evaluate.WORKDIR.value), lambda: None)


if __name__ == "__main__":
    cli.run(main)
