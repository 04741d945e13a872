"""The card of the packaged model is written from scores and from the records of a run."""

import json
import pathlib
import runpy

from genmask_jax.checkpoints.runs import read_config
from genmask_jax.config import TrainConfig
from genmask_jax.pretrained import MODELS_DIR
from genmask_jax.utils.fields import to_json

CARD = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "docs/write_card.py"))
CONFIG = read_config(TrainConfig, MODELS_DIR / "refershapes")
MASKS = {"count": 4, "mIoU": 0.5, "oIoU": 0.25, "P@0.5": 0.75}
SCORES = {
    **MASKS,
    "groups": {"colour": {**MASKS, "mIoU": 0.625}},
    "swapped": {"mIoU_named": 0.5, "mIoU_original": 0.0},
    "absent": {"absent_reported": 0.9, "present_found": 0.95},
    "generation": {"count": 2, "share_right": 0.5, "kinds": {"star": 0.5}},
    "scenes": {"count": 2, "share_right": 0.125},
    "version": "1",
}


def test_the_card_shows_the_scores():
    card = CARD["write_card"](CONFIG, dict.fromkeys(CARD["SETS"], SCORES), "90 steps", 4_800_000)
    assert "4.8 MB" in card
    assert "90 steps" in card
    assert "| **all** | 4 | 0.500 | 0.250 | 0.750 |" in card
    assert "| colour | 4 | 0.625 | 0.250 | 0.750 |" in card
    assert "| val | 90 % | 95 % |" in card
    assert "star 50 %" in card


def test_the_training_describes_all_sessions(tmp_path):
    sessions = [
        {"devices": "1 x cpu", "cores": 2, "processor": "A"},
        {"devices": "4 x B", "cores": 1, "processor": "A"},
        {"devices": "1 x cpu", "cores": 2, "processor": "A"},
    ]
    (tmp_path / "sessions.jsonl").write_text("\n".join(json.dumps(line) for line in sessions) + "\n")
    (tmp_path / "config.json").write_text(to_json(CONFIG))
    description = CARD["describe_training"](tmp_path, CONFIG.loop.num_steps)
    assert description.startswith(f"{CONFIG.loop.num_steps:,} steps, ")
    assert description.endswith("in 3 sessions on 2 x A and 4 x B")
    assert CARD["describe_training"](tmp_path, 1).startswith(f"1 of {CONFIG.loop.num_steps:,} steps, ")
