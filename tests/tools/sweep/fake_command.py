"""Stands for train.py and evaluate.py in tests of sweeps: python fake_command.py NAME FOLDER FLAGS.

Writes its call to calls.jsonl next to this file. A run whose folder is in fail.json fails; one in wait.json
waits until it is stopped, saves on SIGTERM, and exits.
"""

import json
import os
import pathlib
import signal
import sys
import time

here = pathlib.Path(__file__).parent
name, scripts, *words = sys.argv[1:]
flags = dict((word[2:].partition("=")[::2]) for word in words)
workdir = pathlib.Path(flags["workdir"])
run = workdir.parent.name
cores = sorted(os.sched_getaffinity(0))
with open(here / "calls.jsonl", "a") as file:
    file.write(
        json.dumps({"name": name, "scripts": scripts, "run": run, "flags": flags, "cores": cores}) + "\n"
    )


def listed(file: str) -> bool:
    return (here / file).exists() and run in json.loads((here / file).read_text())


def save(number, frame):
    (workdir / "saved").touch()
    sys.exit(1)


if listed("fail.json"):
    sys.exit("error: the disk is full")
workdir.mkdir(parents=True, exist_ok=True)
if name == "train":
    assert ("resume" in flags) == (workdir / "config.json").exists()
    signal.signal(signal.SIGTERM, save)
    (workdir / "config.json").write_text(json.dumps(flags))
    if listed("wait.json"):
        (workdir / "waiting").write_text(str(os.getpid()))
        time.sleep(60)
    session = {"versions": {"genmask-jax": "1"}, "processor": "A", "cores": len(cores)}
    (workdir / "sessions.jsonl").write_text(json.dumps(session) + "\n")
else:
    config = json.loads((pathlib.Path(flags["checkpoint"]) / "config.json").read_text())
    score = int(config["config.loop.num_steps"]) / 100 + int(flags["seed"]) / 1000
    scores = {"mIoU": score, "P@0.9": score / 2, "groups": {"kind": {"mIoU": int(flags["mask_steps"])}}}
    (workdir / "metrics.json").write_text(json.dumps(scores))
