"""The plan of a model's parameters: a table with a row for each parameter, made once (`rules.make_plan`).

Everything that treats parameters differently reads this table: the split into trained and frozen parameters,
the loading of weights, the masks of the optimizer, and the sharding of parameters, gradients, EMA and
moments.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genmask_jax.parameters.names import name_in_layer, parameter_name

T = TypeVar("T")


class Role(enum.StrEnum):
    """What training does to a parameter. ADAPTED: the parameter is frozen, and its adapter is trained."""

    TRAINED = "trained"
    ADAPTED = "adapted"
    FROZEN = "frozen"


class Source(enum.StrEnum):
    """Where the initial values of a parameter in this process come from.

    FRESH: random initialisation.
    RUN: a checkpoint of this run or another, or a packed model.
    IMPORT: public weights.
    BASE: the base weights of adapters, from a run or imported.
    """

    FRESH = "fresh"
    RUN = "run"
    IMPORT = "import"
    BASE = "base"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter.

    name: name in the model, such as "dit.blocks.attn1.to_q.kernel".
    dtype: dtype in memory.
    compute_dtype: dtype that a matrix is cast to in products; `dtype` for other parameters.
    spec: sharding over the mesh.
    source: where the initial values come from.
    origin: field of the config that names this source: "vae", "instruction" or "init"; "" for none.
    optimizer: "muon" or "adam"; "" if the parameter is not trained.
    decayed: whether the parameter has weight decay.
    lr_scale: factor on the learning rate.

    Comparisons ignore the fields from `source` on, which the programs of samplers do not depend on.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    compute_dtype: np.dtype
    spec: PartitionSpec
    role: Role
    source: Source = dataclasses.field(compare=False)
    origin: str = dataclasses.field(default="", compare=False)
    optimizer: str = dataclasses.field(default="", compare=False)
    decayed: bool = dataclasses.field(default=False, compare=False)
    lr_scale: float = dataclasses.field(default=1.0, compare=False)


@dataclasses.dataclass(frozen=True)
class ParameterPlan:
    """The parameters of a model on a mesh. Iterates over parameters; `plan[name]` returns one."""

    parameters: tuple[Parameter, ...]
    mesh: Mesh

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Parameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    @functools.cached_property
    def _by_name_in_layer(self) -> Mapping[tuple[str | None, tuple[int, ...]], Parameter]:
        """By the name in a block, and the shape. Parameters that share both are sharded alike."""
        return {(name_in_layer(x.name), x.shape): x for x in self.parameters}

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def is_trained(self, path: tuple[Any, ...], _: Any) -> bool:
        """Whether the parameter at this path in the model is trained: a filter for `nnx.split`."""
        return self[".".join(map(str, path))].role is Role.TRAINED

    def map(self, function: Callable[[Parameter], T], tree: Any) -> Any:
        """Applies `function` to the parameter of each leaf of `tree`; returns a tree of the results."""
        return jax.tree.map_with_path(lambda keys, _: function(self[parameter_name(keys)]), tree)

    def shardings(self, tree: Any) -> Any:
        """NamedShardings for a state of the model, for gradients, or for a whole train state.

        A leaf is sharded like the parameter whose name its own name ends with (for example
        "opt_state.1.mu.dit.proj_out.kernel"), if they have the same shape. Other leaves are replicated.
        """

        def sharding(keys: Any, leaf: Any) -> NamedSharding:
            owner = self._owner(parameter_name(keys))
            same = owner is not None and owner.shape == tuple(leaf.shape)
            return NamedSharding(self.mesh, owner.spec if owner and same else PartitionSpec())

        return jax.tree.map_with_path(sharding, tree)

    def _owner(self, name: str) -> Parameter | None:
        while name and name not in self._by_name:
            name = name.partition(".")[2]
        return self._by_name.get(name)

    def of_layers(self, name: str, shape: tuple[int, ...]) -> Parameter:
        """A parameter of stacked blocks, by its name inside one block and its shape `[depth, ...]`."""
        return self._by_name_in_layer[name, tuple(shape)]
