"""Some hundred damaged inputs for each reader; `fuzz.py` tries as many as wanted."""

import pathlib
import random
import signal

import pytest

from tests.faults import corpus, fuzz
from tests.faults.raw_targets import layouts
from tests.faults.targets import all_targets, requests

SLOWER = {"class_maps": 15, "any_layout": 10, "config_fields": 25, "requests": 40}
"""Numbers of inputs of targets that take milliseconds for each."""
NAMES = [name for name in all_targets(pathlib.Path()) if name != "requests"]


@pytest.fixture(autouse=True)
def alarms():
    before = {alarm: signal.getsignal(alarm) for alarm in (signal.SIGALRM, signal.SIGPROF)}
    fuzz.catch_alarms()
    yield
    for alarm, handler in before.items():
        signal.signal(alarm, handler)


def need_no_findings(name, target) -> None:
    inputs = range(SLOWER.get(name, 60))
    assert fuzz.try_inputs(name, target, inputs, seed=0).findings == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_damaged_inputs_are_read_or_refused(name, tmp_path):
    need_no_findings(name, all_targets(tmp_path)[name]())


@pytest.mark.filterwarnings("ignore")
def test_damaged_requests_are_answered_or_refused(handlers, tmp_path, monkeypatch):
    for part, method in ((handlers.segmenter, "_segment"), (handlers.generator, "steps")):
        monkeypatch.setattr(part, method, getattr(part, method))  # restored after the test
    need_no_findings("requests", requests(handlers, tmp_path))


@pytest.mark.parametrize("name", sorted(set(all_targets(pathlib.Path())) & set(layouts())))
def test_what_is_not_damaged_is_read(name, tmp_path):
    folder = all_targets(tmp_path)[name]().read.__self__
    for file, content in folder.files.items():
        folder.check((file, content))


def test_a_fault_is_found(tmp_path):
    """The fuzzer tells a bad reader: one that raises, one whose message has two lines, one that is slow."""

    def fails(made):
        raise {0: KeyError, 1: ValueError}[made % 2]("x")

    target = fuzz.Target(lambda rng: rng.randrange(2), fails)
    counts = fuzz.try_inputs("bad", target, range(8), seed=0)
    assert len(counts.findings) == 8
    assert {text.partition(" ")[0] for _, text in counts.findings} == {"KeyError", "ValueError"}


def test_inputs_are_the_same_for_a_seed():
    from tests.faults.mutations import mutate_json

    made = [mutate_json(random.Random("a"), corpus.coco()) for _ in range(2)]
    assert made[0] == made[1]


def test_the_shares_are_all_inputs():
    assert set(fuzz.SHARES) == set(all_targets(pathlib.Path()))
    assert sum(fuzz.SHARES.values()) == pytest.approx(100)
