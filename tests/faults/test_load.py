"""The web page under load, in short; `python tests/faults/load_page.py` sends more."""

import threading
import time

import pytest

from genmask_jax.tools.demo.limits import ModelThread
from genmask_jax.utils.errors import UserError


def test_a_request_ends_in_time_and_later_ones_are_refused_until_the_model_is_free():
    model, go_on = ModelThread(), threading.Event()
    begin = time.monotonic()
    with pytest.raises(UserError, match="takes too long"):
        model.run(begin + 0.05, go_on.wait)
    with pytest.raises(UserError, match="busy"):
        model.run(begin + 9, int)
    assert time.monotonic() - begin < 5
    go_on.set()
    while not model._last.done():
        time.sleep(0.01)
    assert model.run(float("inf"), int, "3") == 3


@pytest.mark.slow
def test_the_page_under_load():
    pytest.importorskip("gradio", reason="needs the extra demo")
    from tests.faults.load_page import run

    summary = run(requests=60, clients=20, models=["refershapes_small"])
    print(f"\n{summary}")
    assert not summary["problems"]
