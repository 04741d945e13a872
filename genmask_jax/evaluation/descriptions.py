"""Descriptions of what a source's expressions ask for, written by a language model."""

import jax

from genmask_jax.data.prepared.source import PreparedBenchmark
from genmask_jax.inference.reasoner import Reasoner
from genmask_jax.utils.hosts import gather_rows


def describe_all(reasoner: Reasoner, source: PreparedBenchmark) -> list[str]:
    """Describes in plain words what each of a source's expressions asks for; hosts share the work.

    If the model writes nothing, the expression itself is returned.
    """
    own = range(jax.process_index(), len(source), jax.process_count())
    written: dict[int, str] = {}
    for start in range(0, len(own), reasoner.batch_size):
        numbers = own[start : start + reasoner.batch_size]
        questions = [source.text(i) for i in numbers]
        answers = reasoner([source.image(i) for i in numbers], questions, numbers)
        written |= {i: a or q for i, a, q in zip(numbers, answers, questions, strict=True)}
    return gather_rows(written)
