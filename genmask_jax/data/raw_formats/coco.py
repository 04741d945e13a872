"""Entries of COCO JSON files, checked one by one, so that one invalid entry does not affect the others."""

import dataclasses
from typing import Any, TypeGuard

from etils import epath

from genmask_jax.data.masks import MAX_PIXELS, Size
from genmask_jax.data.raw_formats.layout import read_json
from genmask_jax.data.raw_formats.names import is_text
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError, short_repr


@dataclasses.dataclass(frozen=True)
class ListedImage:
    """An entry of "images": the name of its file, and its height and width."""

    file: str
    size: Size


class CocoFile:
    """The valid entries of a COCO file.

    path: path of the file.
    images: images by id.
    annotations: dictionaries whose "image_id" is in `images`.
    categories: names by id.
    """

    def __init__(self, path: epath.Path, problems: Problems):
        """Reads the file, and reports invalid entries to `problems`.

        Raises:
            UserError: the file cannot be read, or has no list of images or annotations.
        """
        content = read_json(path, dict)
        for name in ("images", "annotations"):
            if not isinstance(content.get(name), list):
                raise UserError(f"{path} is not in COCO's format: it has no list of {name}")
        self.path, self._problems = path, problems
        self._excluded: set[Any] = set()  # ids of images that are left out
        self.images = self._read_images(content["images"])
        self.annotations = [a for i, a in enumerate(content["annotations"]) if self._is_valid(a, i)]
        self.categories = self._read_categories(content.get("categories"))

    def _read_images(self, entries: list[Any]) -> dict[Any, ListedImage]:
        images: dict[Any, ListedImage] = {}
        for i, entry in enumerate(entries):
            number = entry.get("id") if isinstance(entry, dict) else None
            if not is_id(number):
                self._leave_out(f"image {i} of the list has no id")
                continue
            try:
                image = _image(entry)
            except ValueError as error:
                self._leave_out(f"image {number} {error}; it and its annotations are left out")
                self._excluded.add(number)
                continue
            if images.setdefault(number, image) != image:
                both = f"{images[number].file} and {image.file}"
                self._leave_out(
                    f"image {number} is two images, {both}; they and their annotations are left out"
                )
                self._excluded.add(number)
            elif images[number] is not image:
                self._problems.note(f"{self.path.name}: image {number} is listed twice")
        return {number: image for number, image in images.items() if number not in self._excluded}

    def _is_valid(self, annotation: Any, position: int) -> bool:
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not is_id(number):
            self._leave_out(f"annotation {position} of the list has no image_id")
        elif number not in self.images and number not in self._excluded:
            self._leave_out(f"an annotation has image_id {number}, which is not in the file")
        return is_id(number) and number in self.images

    def _read_categories(self, entries: Any) -> dict[Any, str]:
        categories: dict[Any, str] = {}
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            number, name = (entry.get(key) if isinstance(entry, dict) else None for key in ("id", "name"))
            if not is_id(number) or not is_text(name):
                self._leave_out(f"category {i} of the list has no id or no name")
            elif categories.setdefault(number, name.strip()) != name.strip():
                self._leave_out(f"category {number} is both {categories[number]!r} and {name!r}")
        return categories

    def _leave_out(self, message: str) -> None:
        self._problems.add(f"{self.path.name}: {message}")


def is_id(value: Any) -> TypeGuard[int | str]:
    """Whether a value identifies an image or a category: a 64-bit integer or a text."""
    return is_integer(value) or is_text(value)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value is a 64-bit integer, as ids of objects are."""
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _image(entry: dict[str, Any]) -> ListedImage:
    """The image of an entry. Raises ValueError if a field is missing or invalid."""
    for name in ("file_name", "height", "width"):
        value = entry.get(name)
        if value is None:
            raise ValueError(f"has no {name!r}")
        if not (is_text(value) if name == "file_name" else isinstance(value, int) and value > 0):
            raise ValueError(f"has an invalid {name!r}: {short_repr(value)}")
    if entry["height"] * entry["width"] > MAX_PIXELS:
        raise ValueError(f"has an invalid size: more than {MAX_PIXELS // 10**6} megapixels")
    return ListedImage(entry["file_name"], (entry["height"], entry["width"]))
