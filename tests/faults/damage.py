"""Damages files as storage does: flips a bit, or cuts the end off."""

import dataclasses
import pathlib
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Fault:
    """Damage to a file.

    path: the file.
    kind: "flip" (of the lowest bit of the byte at `offset`) or "cut" (the file ends at `offset`).
    """

    path: pathlib.Path
    kind: str
    offset: int

    def __str__(self) -> str:
        return f"{self.kind} {self.path} at {self.offset}"

    def apply(self, root: pathlib.Path) -> None:
        """Damages the file `path` below `root`."""
        content = bytearray((root / self.path).read_bytes())
        if self.kind == "flip":
            content[self.offset] ^= 1
        else:
            del content[self.offset :]
        (root / self.path).write_bytes(content)


def files_below(root: pathlib.Path) -> list[pathlib.Path]:
    """All files below a folder, relative to it, sorted."""
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def faults_of(root: pathlib.Path, flips: int, cuts: int) -> Iterator[Fault]:
    """Faults of each file below `root`, one at a time.

    Args:
        root: the folder.
        flips: regions of equal size of a file, in the middle of each of which a bit is flipped.
        cuts: places at equal distances at which a file is cut; the first one leaves nothing of it.
    """
    for path in files_below(root):
        size = (root / path).stat().st_size
        for offset in sorted({int((i + 0.5) * size / flips) for i in range(flips)} if size else ()):
            yield Fault(path, "flip", offset)
        for offset in sorted({i * size // cuts for i in range(cuts)} if size else ()):
            yield Fault(path, "cut", offset)


def a_fault_of_each(root: pathlib.Path) -> list[Fault]:
    """One fault of each file that is not empty: a flip in its middle, or nothing left of it, in turn."""
    faults = list(faults_of(root, flips=1, cuts=1))
    return [fault for i, fault in enumerate(faults) if i % 4 in (0, 3)]
