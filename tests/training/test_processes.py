"""Sums over processes, with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import exit_codes, forked
from near import near
from safetensors.torch import load_file

from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.launched import threads_each, timeout
from metanlp.core.types import MetaGrad, Weights
from metanlp.training.processes import Ranks

# What every rank does. It runs here as one process, and in 2 and 4 forked from it.
SCRIPT = '''
import json, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from metanlp.core.errors import InputError
from metanlp.core.types import MetaGrad
from metanlp.training.processes import Ranks

LIKE = {"lora/b": torch.zeros(50, 7), "lora/a": torch.zeros(3, dtype=torch.bfloat16), "head/bias": torch.zeros(())}
COUNTS = {"seven": 7, "one": 1, "none": 0}


def part(number):
    """Gradients over many orders of magnitude, so that every order of adding gives other bits."""
    generator = torch.Generator().manual_seed(number)
    grad = {key: torch.randn(value.shape, generator=generator) * 10.0 ** (number % 4) for key, value in LIKE.items()}
    if number == 3:
        del grad["lora/b"]
    return MetaGrad(grad, torch.tensor([0.1 + number]), 20_000_001 + number)


def refuse():
    raise InputError("not like this")


def main(ranks, folder):
    found, told = {}, {"size": ranks.size, "device": str(ranks.device), "main": ranks.main}
    for name, count in COUNTS.items():
        for exact in (True, False):
            mine = (part(number) for number in ranks.mine(count))
            grad, loss, tokens = ranks.total(mine, LIKE, count, exact=exact)
            found |= {f"{name}/{exact}/{key}": value.clone() for key, value in grad.items()}
            told[f"{name}/{exact}"] = [loss, tokens]
    told["broadcast"] = ranks.broadcast({"precision": "bf16", "from": ranks.index})
    told["gather"] = ranks.gather([f"rank {ranks.index}"] * ranks.index)
    ranks.require_same("before", lambda: {"seed": 0})
    try:
        ranks.require_same("after meta-step 10", lambda: {"seed": 0, "theta": "b" if ranks.index == 1 else "a"})
    except InputError as error:
        told["differs"] = str(error)
    told["on_main"] = ranks.on_main(lambda: f"rank {ranks.index}")
    try:
        ranks.on_main(refuse)
    except InputError as error:
        told["refused"] = str(error)
    told["any"] = [ranks.any(False), ranks.any(ranks.index == ranks.size - 1)]
    save_file(found, folder / f"{ranks.index}.safetensors")
    (folder / f"{ranks.index}.json").write_text(json.dumps(told))
    ranks.close()


if __name__ == "__main__":
    main(Ranks.start(), Path(sys.argv[1]))
'''

# One of two ranks is started otherwise than the other: what every rank then says, and after how many steps.
STRAY = """
import json, sys
from dataclasses import replace
from pathlib import Path

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone, Lora
from metanlp.core.errors import InputError
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.tasks.taskset import read
from metanlp.training import meta_train as module
from metanlp.training.optimizer import OuterOptimizer
from metanlp.training.processes import Ranks

ranks, told = Ranks.start(cpu=True), {}
stray = ranks.index == 1
net = Backbone.load(sys.argv[1], Lora(rank=4, alpha=8), precision="fp32")
tasks = read("mini/emotions,mini/formality", data_root=None)
other = [replace(task, pools={"train": task.pools["train"][::-1]}) for task in tasks]
step = OuterOptimizer.step


def run(name, tasks=tasks, seed=0):
    episodes = Episodes(tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=2), seed=0)
    plan = module.Plan(steps=25, meta_batch=2, patience=0, checkpoints=0)
    try:
        module.meta_train(ProtoNet(), net, episodes, plan, ranks=ranks, seed=seed)
    except InputError as error:
        told[name] = str(error)


run("none")
run("seed", seed=ranks.index)
run("data", tasks=other if stray else tasks)
if stray:
    OuterOptimizer.step = lambda outer, grad, rate, *more: step(outer, grad, rate * 1.001, *more)
run("code")
Path(sys.argv[2], f"{ranks.index}.json").write_text(json.dumps(told))
ranks.close()
"""

# One of two ranks is gone in the middle of its work.
LOST = """
import os, signal, sys
from metanlp.cli.launch import guarded
from metanlp.training.processes import Ranks

ranks = Ranks.start(cpu=True)


def work():
    while True:
        if ranks.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.any(False)


with open(sys.argv[1], "w") as sys.stderr:
    guarded(work)
"""

# One of two ranks lives and says nothing, as one does that no cable leads to.
SILENT = """
import os, sys, time
from metanlp.cli.launch import guarded
from metanlp.training.processes import Ranks

os.environ["METANLP_TIMEOUT"] = "0.5"
ranks = Ranks.start(cpu=True)
if ranks.index == 1:
    time.sleep(3)
    os._exit(0)
with open(sys.argv[1], "w") as sys.stderr:
    guarded(lambda: ranks.any(False))
"""

# A launcher that is killed when its only rank has started.
ORPHAN = """
import os, signal, sys, time
from pathlib import Path
from metanlp.training.processes import Ranks

launcher = os.getpid()
if not os.fork():
    signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[1]).write_text("told"), os._exit(0)))
    os.environ["TORCHELASTIC_RUN_ID"] = "none"
    Ranks.start(cpu=True)
    os.kill(launcher, signal.SIGKILL)
    time.sleep(30)
    os._exit(1)
time.sleep(60)
"""

Told = dict[str, Any]


def read(folder: Path, ranks: int) -> list[tuple[Weights, Told]]:
    return [
        (load_file(folder / f"{rank}.safetensors"), json.loads((folder / f"{rank}.json").read_text()))
        for rank in range(ranks)
    ]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Told]:
    folder = tmp_path_factory.mktemp("one")
    names: dict[str, Any] = {"__name__": "script"}
    exec(SCRIPT, names)
    names["main"](Ranks(0, 1, torch.device("cpu")), folder)
    return read(folder, 1)[0]


@pytest.fixture(scope="module", params=[2, 4])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Weights, Told]]:
    folder = tmp_path_factory.mktemp("many")
    forked(request.param, SCRIPT, folder)
    return read(folder, request.param)


def test_the_processes_are_really_there(many: list[tuple[Weights, Told]]) -> None:
    assert {told["size"] for _, told in many} == {len(many)}
    assert [told["main"] for _, told in many] == [True] + [False] * (len(many) - 1)


def test_exact_is_bitwise_one_process(one: tuple[Weights, Told], many: list[tuple[Weights, Told]]) -> None:
    for grads, told in many:
        assert weights.equal(*({k: v for k, v in w.items() if "/True/" in k} for w in (grads, one[0])))
        for name in ("seven/True", "one/True", "none/True"):
            assert told[name] == one[1][name]


def test_fast_is_close_and_the_same_everywhere(one: tuple[Weights, Told], many: list[tuple[Weights, Told]]) -> None:
    for grads, told in many:
        for key, value in grads.items():
            near(value, one[0][key])
        near(told["seven/False"][0], one[1]["seven/False"][0])
        assert weights.equal(grads, many[0][0])


def test_tokens_are_whole_numbers_beyond_float32(many: list[tuple[Weights, Told]]) -> None:
    expected = 7 * 20_000_001 + sum(range(7))
    assert int(torch.tensor(expected, dtype=torch.float32)) != expected
    for _, told in many:
        assert told["seven/True"][1] == told["seven/False"][1] == expected
        assert told["one/True"][1] == told["one/False"][1] == 20_000_001


def test_words_go_round(many: list[tuple[Weights, Told]]) -> None:
    for _, told in many:
        assert told["broadcast"] == {"precision": "bf16", "from": 0}
        assert told["gather"] == [f"rank {rank}" for rank in range(len(many)) for _ in range(rank)]
        assert told["differs"] == (
            f"after meta-step 10 rank 1 of {len(many)} differs from rank 0: theta is b there and a on rank 0; start "
            "every process with the same command, code and data"
        )
        assert told["any"] == [False, True]


def test_a_rank_that_was_started_otherwise_is_found(tiny: Path, tmp_path: Path) -> None:
    forked(2, STRAY, tiny, tmp_path)
    told, same = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert told == same
    assert list(told) == ["seed", "data", "code"]
    assert told["seed"].startswith("at the start rank 1 of 2 differs from rank 0: seed is 1 there and 0 on rank 0;")
    for name, fact in (("data", "the checksum of its data"), ("code", "the checksum of θ")):
        assert told[name].startswith(f"after meta-step 10 rank 1 of 2 differs from rank 0: {fact} is "), told[name]


def test_a_rank_that_is_gone_is_one_line_for_the_others(tmp_path: Path) -> None:
    assert exit_codes(2, LOST, tmp_path / "said") == [1, -9]
    said = (tmp_path / "said").read_text()
    assert said.startswith("another process of this run is gone, or did not answer in time")
    assert "start all of them again with --resume" in said
    assert said.count("\n") == 1


def test_a_rank_that_says_nothing_is_one_line_after_the_time_that_was_set(tmp_path: Path) -> None:
    assert exit_codes(2, SILENT, tmp_path / "said") == [1, 0]
    said = (tmp_path / "said").read_text()
    assert said.startswith("another process of this run is gone, or did not answer in time")
    assert said.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes outlive their launcher")
def test_a_rank_is_told_to_stop_when_its_launcher_is_killed(tmp_path: Path) -> None:
    assert exit_codes(1, ORPHAN, tmp_path / "said") == [-9]
    until = time.monotonic() + 20
    while not (tmp_path / "said").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "said").read_text() == "told"


@pytest.mark.parametrize("given", ["0", "-3", "soon", "nan", "inf"])
def test_a_time_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(InputError, match=f"METANLP_TIMEOUT is '{given}'; give the seconds"):
        timeout({"METANLP_TIMEOUT": given})


def test_a_time_is_seconds() -> None:
    assert timeout({}) is timeout({"METANLP_TIMEOUT": ""}) is None
    assert timeout({"METANLP_TIMEOUT": "2.5"}) == timedelta(seconds=2, milliseconds=500)


def test_rank_0_works_for_all_and_is_refused_for_all(
    one: tuple[Weights, Told], many: list[tuple[Weights, Told]]
) -> None:
    for _, told in (one, *many):
        assert told["on_main"] == "rank 0"
        assert told["refused"] == "not like this"


def test_one_process_alone(one: tuple[Weights, Told]) -> None:
    grads, told = one
    assert grads["none/True/lora/b"].shape == (50, 7)
    assert not grads["none/True/lora/b"].any()
    assert told["none/True"] == [0.0, 0]
    assert told["broadcast"] == {"precision": "bf16", "from": 0}
    assert told["gather"] == []
    assert "differs" not in told
    assert told["any"] == [False, True]


def test_passes_are_dealt_once_each() -> None:
    ranks = [Ranks(index, 3, torch.device("cpu")) for index in range(3)]
    dealt = [list(rank.mine(7)) for rank in ranks]
    assert dealt == [[0, 3, 6], [1, 4], [2, 5]]
    assert [rank.main for rank in ranks] == [True, False, False]


def part(size: float = 1.0) -> MetaGrad:
    return MetaGrad({"x": torch.full((2,), size)}, torch.ones(1), 5)


def test_passes_are_added_in_the_order_of_their_numbers() -> None:
    parts = [part(1e8), part(1.0), part(-1e8)]
    grad, loss, tokens = Ranks.alone().total(parts, {"x": torch.zeros(2)}, 3, exact=True)
    assert torch.equal(grad["x"].cpu(), torch.zeros(2))
    assert (loss, tokens) == (3.0, 15)


def test_arguments_stay_as_they_were() -> None:
    given, like = part(), {"x": torch.zeros(2)}
    Ranks.alone().total([given], like, 1, exact=False)
    assert torch.equal(given.grad["x"], torch.ones(2))
    assert torch.equal(like["x"], torch.zeros(2))


def test_processes_that_did_not_join_are_refused() -> None:
    # As under `torchrun` without a GPU when somebody else started accelerate first, in its own silent way.
    code = (
        "import os, accelerate, metanlp.training.processes as p; accelerate.PartialState(cpu=True); "
        "os.environ['WORLD_SIZE'] = '2'; p.Ranks.start()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert "InputError: the launcher started 2 processes but accelerate joins 1" in ended.stderr


@pytest.mark.parametrize(
    ("environ", "processes"),
    [({}, 1), ({"LOCAL_WORLD_SIZE": "2"}, 2), ({"LOCAL_WORLD_SIZE": "4096"}, 4096),
     ({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 1),
     ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}, 2)],
)  # fmt: skip
def test_a_launcher_s_single_thread_is_nobody_s_wish(environ: dict[str, str], processes: int) -> None:
    from joblib import cpu_count

    assert threads_each(environ) == max(1, cpu_count(only_physical_cores=True) // processes)


@pytest.mark.parametrize(
    "environ", [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "3", "ACCELERATE_MIXED_PRECISION": "no"}]
)
def test_threads_that_somebody_set_stay(environ: dict[str, str]) -> None:
    assert threads_each(environ) is None


@pytest.mark.slow
def test_importing_parallel_does_not_import_accelerate() -> None:
    code = "import sys, metanlp.training.processes; print('accelerate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
