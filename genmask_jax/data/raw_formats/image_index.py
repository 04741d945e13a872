"""Finds images by the names in annotations: a file name, with or without some of its folders."""

import re
import unicodedata

from etils import epath

from genmask_jax.data.raw_formats.folder_names import files_below, is_annotation, parts_below, split_and_key
from genmask_jax.utils.images import SUFFIXES

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""Prefix of uploaded files in Label Studio."""


class ImageIndex:
    """All images below a folder that are not annotations."""

    def __init__(self, raw: epath.Path):
        self.raw = raw
        self._by_name: dict[str, list[epath.Path]] = {}
        for path in files_below(raw):
            parts = parts_below(path, raw)
            if path.name.lower().endswith(SUFFIXES) and not is_annotation(parts, path.stem, apart=True):
                self._by_name.setdefault(normalised(path.name), []).append(path)
        self._by_lower: dict[str, list[epath.Path]] = {}
        for name, paths in self._by_name.items():
            self._by_lower.setdefault(name.lower(), []).extend(paths)

    @property
    def paths(self) -> list[epath.Path]:
        """The images, ordered by name."""
        return [path for name in sorted(self._by_name) for path in self._by_name[name]]

    def find(self, name: str, split: str = "") -> epath.Path | None:
        """The image whose folders match most of the last folders of `name`; None if there is none.

        Names that differ in case are used if no name is equal.

        Args:
            name: a file name, a path or a URL, with slashes of any kind.
            split: preferred split, if several images match equally.

        Raises:
            ValueError: several images match.
        """
        parts = normalised(name).replace("\\", "/").split("?d=")[-1].split("/")
        names = (parts[-1], UPLOAD_PREFIX.sub("", parts[-1]))
        matches = next((self._by_name[name] for name in names if name in self._by_name), None)
        matches = matches or next(
            (self._by_lower[n.lower()] for n in names if n.lower() in self._by_lower), []
        )
        for agreement in (
            lambda path: _count_common(path.parts[:-1], parts[:-1]),
            lambda path: self.split_and_key(path)[0] == split,
        ):
            best = max(map(agreement, matches), default=0)
            matches = [path for path in matches if agreement(path) == best]
        if len(matches) > 1:
            raise ValueError(
                f"may be {matches[0].relative_to(self.raw)} or {matches[1].relative_to(self.raw)}"
            )
        return matches[0] if matches else None

    def split_and_key(self, path: epath.Path) -> tuple[str, str]:
        """(split or "", key) of an image; see `folder_names.split_and_key`."""
        return split_and_key(parts_below(path, self.raw), path.stem, whole=True)


def normalised(name: str) -> str:
    """A file name in Unicode's NFC form, because file systems and annotations may use different forms."""
    return unicodedata.normalize("NFC", name)


def _count_common(parts: tuple[str, ...], other_parts: list[str]) -> int:
    """Number of equal folders, counted from the last."""
    pairs = zip(reversed(parts), reversed(other_parts), strict=False)
    return next(
        (i for i, (part, other) in enumerate(pairs) if normalised(part) != other),
        min(len(parts), len(other_parts)),
    )
