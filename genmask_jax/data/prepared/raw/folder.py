"""A user's own images, in any of the layouts that common tools write, a module for each."""

from types import ModuleType

from etils import epath

from genmask_jax.data.prepared.raw import beside, binary_masks, class_maps, yolo
from genmask_jax.data.prepared.raw.plan import Plan
from genmask_jax.errors import UserError

FORMATS: dict[str, ModuleType] = {
    "yolo": yolo,
    "class_maps": class_maps,
    "masks": binary_masks,
    "beside": beside,
}
"""Readers by the value of --format, in the order in which they are tried."""


def read(raw: epath.Path, format: str = "") -> Plan:
    """Reads a folder in the given format, or in the one that it is recognised to have, and says which.

    Raises:
        UserError: there is no such folder, or nothing in it can be used.
    """
    if not raw.is_dir():
        raise UserError(f"--raw={raw}: there is no such folder")
    found = {name: said for name, module in FORMATS.items() if (said := module.recognise(raw))}
    name = format or next(iter(found), "beside")
    others = ", ".join(f"{other} ({said})" for other, said in found.items() if other != name)
    more = f"; it also looks like {others}: choose with --format" if others and not format else ""
    print(f"{raw}: read as {name}: {found.get(name, 'nothing that speaks for it')}{more}")
    return FORMATS[name].read(raw)
