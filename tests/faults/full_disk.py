"""Runs a command on a disk that gets full, makes room, runs it again, and compares the result.

    sudo python tests/faults/full_disk.py train --sizes=20 --workdir=runs/full_disk

The disk is a tmpfs (Linux, root). Its sizes are at equal distances up to what an undisturbed run needs, so
that it gets full in each kind of write. Each time, the command must end with status 1 and one line that
begins with "error:", and afterwards, with room, equal the undisturbed run. Prints the lines and counts.
"""

import argparse
import collections
import pathlib
import subprocess

from kill_targets import TARGETS
from kills import Job, import_everything, in_child, prepare

MARGIN = 64
"""Size of the disk with room, relative to what is needed."""


def mount(disk: pathlib.Path, kilobytes: int, *, again: bool = False) -> None:
    """Mounts a disk of a size, or changes its size."""
    option = f"{'remount,' if again else ''}size={kilobytes}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(disk)], check=True)


def used(folder: pathlib.Path) -> int:
    """Kilobytes of the files below a folder, in blocks of 4 kB."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(4 * -(-size // 4096) for size in sizes)


def complaint(log: pathlib.Path) -> str:
    """The error that a command printed, in its last line. Orbax and TensorStore log their own before."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:], f"the last line of {log} is not its only error: {lines[-1:]}"
    return errors[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--sizes", type=int, default=10)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    import_everything()
    folder, target = arguments.workdir.resolve(), TARGETS[arguments.name]
    disk, log = folder / "disk", folder / "log.txt"
    disk.mkdir(parents=True, exist_ok=True)
    inputs, expected, _ = prepare(arguments.name, folder, log)
    out, needed, said = disk / "out", used(expected), collections.Counter()

    def run() -> int:
        job = Job(target, target.variations[0], inputs, out, log)
        job.wait()
        return max(job.statuses)

    for i in range(arguments.sizes):
        mount(disk, max(1, int(needed * (i + 0.5) / arguments.sizes)))
        try:
            log.unlink()
            status = run()
            if status:
                assert status == 1, f"status {status}; see {log}"
                said[complaint(log).replace(str(disk), "")] += 1
                mount(disk, MARGIN * needed, again=True)
                log.rename(folder / "full.txt")
                assert run() == 0, f"see {log}"
            problem = in_child(target.same, out, expected)
            assert not problem, f"size {i}: {problem}"
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    for line, count in said.most_common():
        print(f"{count} x {line}")
    full = sum(said.values())
    print(f"{arguments.name}: {full} full disks of {arguments.sizes}; all runs equal an undisturbed one")


if __name__ == "__main__":
    main()
