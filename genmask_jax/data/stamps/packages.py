"""Finds, downloads and unpacks the Debian packages of Stamps."""

import pathlib
import shutil
import subprocess

from tqdm import tqdm

from genmask_jax.utils.errors import UserError

STAMPS = "tuxpaint-stamps-default"


PACKAGES = {
    STAMPS: "GPL-2",
    "plasma-workspace-wallpapers": "GPL-2+",
    "mate-backgrounds": "GPL-2+",
    "lomiri-wallpapers-16.04": "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0",
    "lomiri-wallpapers-20.04": "CC-BY-SA-3.0",
}
"""The packages, each with the licence of files that are not listed separately in its copyright file."""


def find_packages(raw: pathlib.Path, unpacked: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of each package: installed, or unpacked from a .deb in `raw`, which is downloaded if missing.

    Raises:
        UserError: a Debian tool, the network or a package is missing, or a file is damaged.
    """
    files = {name: _installed(name) for name in PACKAGES}
    uninstalled = [name for name in PACKAGES if not files[name]]
    missing = [name for name in uninstalled if not list(raw.glob(f"{name}_*.deb"))]
    tools = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if ("dpkg-deb" in tools and uninstalled) or ("apt-get" in tools and missing):
        raise UserError(
            f"stamps: this machine has no {'/'.join(tools)}; install dpkg-deb and copy the .deb files of "
            f"{', '.join(uninstalled)} to --raw={raw}, or copy a directory that was prepared on Debian"
        )
    for name in tqdm(missing, desc="fetching packages", unit="package", disable=not missing):
        raw.mkdir(parents=True, exist_ok=True)
        message = f"apt-get cannot download {name}; run apt-get update, or copy its .deb to --raw={raw}"
        _run(["apt-get", "download", name], raw, message)
    for name in tqdm(uninstalled, desc="unpacking", unit="package", disable=not uninstalled):
        deb, folder = sorted(raw.glob(f"{name}_*.deb"))[-1], unpacked / name
        folder.mkdir(parents=True)
        message = f"{deb} cannot be unpacked; delete it and rerun the command"
        _run(["dpkg-deb", "-x", str(deb), str(folder)], raw, message)
        files[name] = sorted(path for path in folder.rglob("*") if path.is_file())
    return files


def _installed(name: str) -> list[pathlib.Path]:
    listed = pathlib.Path(f"/var/lib/dpkg/info/{name}.list")
    paths = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    return [path for path in map(pathlib.Path, paths) if path.is_file()]


def _run(command: list[str], folder: pathlib.Path, message: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"stamps: {message} ({reason})")
