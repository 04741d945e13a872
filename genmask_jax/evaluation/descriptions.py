"""Descriptions of the objects that expressions refer to, written by a language model."""

import jax

from genmask_jax.data.prepared.source import PreparedBenchmark
from genmask_jax.inference.reasoner import Reasoner
from genmask_jax.utils.hosts import gather_rows


def describe_all(reasoner: Reasoner, source: PreparedBenchmark) -> list[str]:
    """Returns a description of the object that each expression of a source refers to; hosts share the work.

    If the model writes nothing, the expression itself is used.
    """
    local = range(jax.process_index(), len(source), jax.process_count())
    descriptions: dict[int, str] = {}
    for start in range(0, len(local), reasoner.batch_size):
        indices = local[start : start + reasoner.batch_size]
        questions = [source.text(i) for i in indices]
        answers = reasoner([source.image(i) for i in indices], questions, indices)
        descriptions |= {i: a or q for i, a, q in zip(indices, answers, questions, strict=True)}
    return gather_rows(descriptions)
