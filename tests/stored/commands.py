"""The recipes, commands and settings with which `make.py` makes runs to be stored."""

from typing import Any

import scanmix

RECIPE = """\
method = "scanmix"
[network]
widths = [4, 8]
blocks = [1, 1]
stem_stride = 2
[settings]
epochs = 3
warmup = 1
num_neighbors = 3
batch_size = 8
cluster_batch_size = 12
[settings.pretrain]
epochs = 3
batch_size = 12
[settings.clustering]
epochs = 2
batch_size = 12
"""
VECTORS = RECIPE.replace("widths = [4, 8]\nblocks = [1, 1]\nstem_stride = 2", "hidden = [8, 6]")
PLAIN = """\
method = "cross_entropy"
[network]
widths = [4, 8]
blocks = [1, 1]
stem_stride = 2
[settings]
epochs = 5
batch_size = 8
learning_rate = 0.1
"""
MOCO = """\
method = "scan"
[network]
widths = [4, 8]
blocks = [1, 1]
stem_stride = 2
[settings]
num_neighbors = 3
[settings.pretrain]
kind = "moco"
epochs = 2
batch_size = 12
queue_size = 20
splits = 2
[settings.clustering]
epochs = 1
batch_size = 12
"""
SHORT = [
    "network.widths=[4]", "network.blocks=[1]", "epochs=1", "minimum_steps=1", "warmup=1", "pretrain.epochs=1",
    "clustering.epochs=1",
]  # fmt: skip
"""What makes the recipe that `scanmix doctor` suggests quick to train."""
COMMANDS = {
    "image": ["train", "photos", "--test", "photos", "--noise", "file:noise.json", "--recipe", "plain.toml"],
    "second": ["train", "photos", "--labels", "runs/image/corrected.csv", "--recipe", "plain.toml"],
    "vectors": ["train", "vectors.npy", "--recipe", "vectors.toml", "--noise", "symmetric:0.3"],
    "killed": [
        "train", "photos", "--test", "photos", "--noise", "symmetric:0.4", "--recipe", "scanmix.toml",
        "--set", "monitor.elbo=12",
    ],
    "stage": ["train", "photos", "--noise", "openset:digits:0.2", "--recipe", "scanmix.toml"],
    "moco": ["train", "photos", "--per-class", "7", "--recipe", "moco.toml"],
    "semantic": ["train", "photos", "--noise", "semantic:vgg:0.2", "--recipe", "plain.toml"],
    "advised": ["train", "photos", "--recipe", "advised.toml", *(f"--set={text}" for text in SHORT)],
}  # fmt: skip
"""The words that make each run; `trained` adds what all have."""
SMALL: dict[str, Any] = {"epochs": 4, "batch_size": 8}
STAGE = {"epochs": 2, "batch_size": 12}
STAGES = {"pretrain": STAGE, "clustering": STAGE, "num_neighbors": 3}
METHODS: dict[str, dict[str, Any]] = dict.fromkeys(scanmix.METHODS, SMALL) | {
    "dividemix": {**SMALL, "warmup": 2, "loss_memory": 2},
    "scan": STAGES,
    "backward": {**SMALL, "identity": 0.5},
    "c2d": {"pretrain": STAGE, "dividemix": {**SMALL, "warmup": 2}},
    "d2l": {**SMALL, "begin": 0, "window": 1, "num_neighbors": 5},
    "pes": {**SMALL, "warmup": 1, "refit_stage": 1, "refit_head": 1},
    "pes_semi": {**SMALL, "warmup": 1, "refit": 1},
    "scan_dividemix": {**STAGES, "dividemix": {**SMALL, "warmup": 2}},
    "scanmix": {**STAGES, **SMALL, "warmup": 2, "cluster_batch_size": 12, "severe_noise": 0.1},
    "exact_em": {"epochs": 4, "steps": 2},
    "linear": {},
    "neighbors": {},
    "wann": {},
    "propagate": {},
}
"""Settings with which each method has kept something of every kind before its last epoch."""
KILLED = """
import itertools, os, runpy, signal, sys, time
event, text, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0
def watch(name, arguments):
    global seen
    if name == event and text in str(arguments[0]):
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
if event == "open":  # a long time seems to pass, so that every epoch of a stage is kept
    real, jumps = time.monotonic, itertools.count()
    time.monotonic = lambda: real() + 100 * next(jumps)
sys.argv = ["scanmix", *sys.argv[4:]]
runpy.run_module("scanmix", run_name="__main__")
"""
"""A command that is killed before a file operation on a path with such a text happens for the n-th time."""


def trained(name: str) -> list[str]:
    """All words after `scanmix` that make a run; the last is its folder."""
    return [*COMMANDS[name], "--seed", "3", "--threads", "1", "--out", f"runs/{name}"]
