"""The datasets of `launch/prepare_data.py`, as builders of tensorflow-datasets.

All have the same features: a record is an image with all its annotations. `data/prepared/prepare.py` runs
them on the cores of one machine; TFDS's Beam path runs them on a cluster. TensorFlow is not needed.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from genmask_jax.data.raw_formats import captions, folder, reasonseg, refer
from genmask_jax.data.raw_formats.plan import Plan, PlannedImage
from genmask_jax.utils.errors import UserError

FEATURES = {
    "image": tfds.features.Image(doc="The publisher's own file."),
    "image_id": tfds.features.Text(),
    "height": np.int32,
    "width": np.int32,
    "turned": tfds.features.Scalar(
        np.bool_, doc="Whether size and masks are for the image after its EXIF orientation."
    ),
    "captions": tfds.features.Sequence(tfds.features.Text()),
    "targets": tfds.features.Sequence(
        {
            "ref_id": np.int64,
            "no_target": np.bool_,
            "counts": tfds.features.Text(doc="COCO's compressed run lengths of [height, width]."),
            "ignored": tfds.features.Text(doc="The same for ignored pixels; empty if there are none."),
        }
    ),
    "annotations": tfds.features.Sequence({"target": np.int32, "ann_id": np.int64}),
    "expressions": tfds.features.Sequence(
        {
            "id": tfds.features.Text(),
            "text": tfds.features.Text(),
            "target": np.int32,
            "is_sentence": np.bool_,
        }
    ),
}


class ImagesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base class of all datasets.

    protocol: scoring protocol, a key of `evaluation.metrics.PROTOCOLS`.
    has_coco_images: whether the images are COCO's, with COCO's ids.
    has_expressions: whether segmentation can be trained on it.
    has_captions: whether generation can be trained on it.
    uses_beam: makes `download_and_prepare` a Beam pipeline.
    """

    VERSION = tfds.core.Version("1.0.0")
    protocol, has_coco_images, uses_beam = "refcoco", False, False
    has_expressions, has_captions = True, False
    description = homepage = ""

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str:
        return f"See docs/benchmarks.md; {self.homepage}"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(FEATURES),
            description=self.description,
            homepage=self.homepage,
        )

    def plan(self, raw: epath.Path) -> Plan:
        """The plan for the raw folder, without empty splits. Raises UserError."""
        return self.read(raw).without_empty_splits()

    def read(self, raw: epath.Path) -> Plan:
        """The plan for the raw folder. Raises UserError."""
        raise NotImplementedError

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        plan = self.plan(epath.Path(dl_manager.manual_dir))
        return {split: self._generate_examples(images) for split, images in plan.splits.items()}

    def _generate_examples(self, images: list[PlannedImage]) -> Any:
        if self.uses_beam:
            beam = tfds.core.lazy_imports.apache_beam
            return beam.Create(images) | beam.FlatMap(valid_examples)
        return (example for image in images for example in valid_examples(image))


def valid_examples(image: PlannedImage) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the image's key and example, or nothing if the image is invalid."""
    try:
        yield image.image_id, image.example()
    except ValueError:
        return


class _Refer(ImagesBuilder, skip_registration=True):
    has_coco_images = True
    homepage = "https://github.com/lichengunc/refer"

    def read(self, raw: epath.Path) -> Plan:
        assert self.builder_config is not None  # all subclasses have configs
        return refer.read(raw, self.name, self.builder_config.name)


def _split_by(*names: str) -> list[tfds.core.BuilderConfig]:
    return [tfds.core.BuilderConfig(name=name, description=f"Splits by {name}.") for name in names]


class RefCoco(_Refer, skip_registration=True):
    """RefCOCO (Yu et al., 2016)."""

    name = "refcoco"
    BUILDER_CONFIGS = _split_by("unc", "google")
    description = "Expressions for objects in COCO images, from a game of two players."


class RefCocoPlus(_Refer, skip_registration=True):
    """RefCOCO+ (Yu et al., 2016)."""

    name = "refcocoplus"
    BUILDER_CONFIGS = _split_by("unc")
    description = "Like RefCOCO, without words for places."


class RefCocoG(_Refer, skip_registration=True):
    """RefCOCOg (Mao et al., 2016)."""

    name = "refcocog"
    BUILDER_CONFIGS = _split_by("umd", "google")
    description = "Longer expressions for objects in COCO images."


class GRefCoco(_Refer, skip_registration=True):
    """gRefCOCO (Liu et al., 2023)."""

    name, protocol = "grefcoco", "grefcoco"
    BUILDER_CONFIGS = _split_by("unc")
    description = "Expressions for one object, several or none in COCO images."
    homepage = "https://github.com/henghuiding/gRefCOCO"


class ReasonSeg(ImagesBuilder, skip_registration=True):
    """ReasonSeg (Lai et al., 2024)."""

    name, protocol = "reasonseg", "reasonseg"
    description = "Questions about images that need reasoning, with masks."
    homepage = "https://github.com/dvlab-research/LISA"

    def read(self, raw: epath.Path) -> Plan:
        return reasonseg.read(raw)


class CocoCaptions(ImagesBuilder, skip_registration=True):
    """COCO's captions of 2017."""

    name, has_coco_images = "coco_captions", True
    has_expressions, has_captions = False, True
    description = "COCO images of 2017 with about five captions each."
    homepage = "https://cocodataset.org"

    def read(self, raw: epath.Path) -> Plan:
        return captions.read(raw)


class ImageFolder(ImagesBuilder, skip_registration=True):
    """A user's own images."""

    name, has_captions = "image_folder", True
    format = ""
    description = "A user's own images, with captions, or with expressions and masks, or with both."

    def read(self, raw: epath.Path) -> Plan:
        return folder.read(raw, self.format)


BUILDERS: dict[str, type[ImagesBuilder]] = {
    builder.name: builder
    for builder in (RefCoco, RefCocoPlus, RefCocoG, GRefCoco, ReasonSeg, CocoCaptions, ImageFolder)
}


def open_builders(name: str, raw: epath.Path, out: epath.Path, format: str = "") -> list[ImagesBuilder]:
    """A dataset's builders, one per way in which the raw files split it (unc, google, umd).

    Args:
        name: a key of BUILDERS.
        raw: folder of the publisher's files.
        out: data directory.
        format: layout of an image_folder; "" to recognise it.

    Raises:
        UserError: the raw folder has no splits of the dataset, or unknown ones.
    """
    builder_class, options = BUILDERS[name], {"data_dir": str(out), "file_format": "array_record"}
    if not builder_class.BUILDER_CONFIGS:
        builder = builder_class(**options)
        if isinstance(builder, ImageFolder):
            builder.format = format
        return [builder]
    names, split_bys = [config.name for config in builder_class.BUILDER_CONFIGS], refer.split_bys(raw, name)
    unknown = sorted(set(split_bys) - set(names))
    if unknown:
        raise UserError(f"--raw={raw}: {name} has no splits by {unknown[0]}, only by {', '.join(names)}")
    return [builder_class(config=split_by, **options) for split_by in split_bys]


def has_coco_images(name: str) -> bool:
    """Whether the images of a dataset, such as "refcoco:unc", are COCO's."""
    builder = BUILDERS.get(name.split(":")[0])
    return builder is not None and builder.has_coco_images


def image_name(data: str, image_id: str) -> str:
    """A name for an image that is the same in all datasets, such as "coco:581857"."""
    return f"{'coco' if has_coco_images(data) else data}:{image_id}"
