"""The plan of a model's parameters: one row for each, made once (`rules.make_plan`).

Whatever treats parameters differently reads it here: the split into trained and frozen ones, the weights that
are loaded, the optimiser's masks, the layout over the mesh of parameters, gradients, averages and moments.
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
    """What training does to a parameter. ADAPTED: it is frozen, and an adapter beside it is trained."""

    TRAINED = "trained"
    ADAPTED = "adapted"
    FROZEN = "frozen"


class Source(enum.StrEnum):
    """Where the first values of a parameter in this process come from.

    FRESH: a random initialisation.
    RUN: a checkpoint of a training run, of this one or of another, or a packed model.
    IMPORT: public weights.
    BASE: the weights beside which adapters are trained, of a run or imported.
    """

    FRESH = "fresh"
    RUN = "run"
    IMPORT = "import"
    BASE = "base"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter.

    name: in the model, such as "dit.blocks.attn1.to_q.kernel".
    dtype: that it is stored in.
    compute_dtype: of the products that a matrix is a factor of; of all others, `dtype`.
    spec: its layout over the mesh.
    source: where its first values come from.
    origin: the field of the config that gives them: "vae", "instruction" or "init"; "" for none.
    optimizer: "muon" or "adam"; "" unless it is trained.
    decayed: whether it has weight decay.
    lr_scale: factor on its learning rate.

    Plans compare, as the programs that are compiled for them do, without regard to sources and optimisers.
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
    """The parameters of a model on a mesh. Iterates over them; `plan[name]` is one."""

    parameters: tuple[Parameter, ...]
    mesh: Mesh

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Parameter]:
        return {one.name: one for one in self.parameters}

    @functools.cached_property
    def _by_name_in_layer(self) -> Mapping[tuple[str | None, tuple[int, ...]], Parameter]:
        """By the name in a block, and the shape. Parameters that share both share their layout."""
        return {(name_in_layer(one.name), one.shape): one for one in self.parameters}

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def is_trained(self, path: tuple[Any, ...], _: Any) -> bool:
        """Whether the parameter at this path in the model is trained: a filter for `nnx.split`."""
        return self[".".join(map(str, path))].role is Role.TRAINED

    def map(self, function: Callable[[Parameter], T], tree: Any) -> Any:
        """`function` of every parameter, as a tree like `tree`, whose leaves have the parameters' names."""
        return jax.tree.map_with_path(lambda keys, _: function(self[parameter_name(keys)]), tree)

    def shardings(self, tree: Any) -> Any:
        """NamedShardings for a state of the model, for gradients, or for a whole train state.

        A leaf lies where the parameter lies whose name its own ends in ("opt_state.1.mu.dit.proj_out.kernel")
        if it has the same shape. Everything else is replicated.
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
        """A parameter of stacked blocks, by its name in one of them, and its shape `[depth, ...]`."""
        return self._by_name_in_layer[name, tuple(shape)]
