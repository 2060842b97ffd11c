"""Sums over processes, with real processes started by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import metanlp
from metanlp import weights
from metanlp.parallel import Part, Ranks, threads_each
from metanlp.types import Weights

# What every rank does. It runs here as one process, and under torchrun as 2 and 4.
SCRIPT = '''
import json, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from metanlp.errors import InputError
from metanlp.parallel import Ranks

LIKE = {"lora/b": torch.zeros(50, 7), "lora/a": torch.zeros(3, dtype=torch.bfloat16), "head/bias": torch.zeros(())}
COUNTS = {"seven": 7, "one": 1, "none": 0}


def part(number):
    """Gradients over many orders of magnitude, so that every order of adding gives other bits."""
    generator = torch.Generator().manual_seed(number)
    grad = {key: torch.randn(value.shape, generator=generator) * 10.0 ** (number % 4) for key, value in LIKE.items()}
    if number == 3:
        del grad["lora/b"]
    return number, grad, 0.1 + number, 20_000_001 + number


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
    told["same"] = [ranks.same("abc"), ranks.same(f"abc{ranks.index}")]
    told["on_main"] = ranks.on_main(lambda: f"rank {ranks.index}")
    try:
        ranks.on_main(refuse)
    except InputError as error:
        told["refused"] = str(error)
    told["any"] = [ranks.any(False), ranks.any(ranks.index == ranks.size - 1)]
    ranks.barrier()
    save_file(found, folder / f"{ranks.index}.safetensors")
    (folder / f"{ranks.index}.json").write_text(json.dumps(told))
    ranks.close()


if __name__ == "__main__":
    main(Ranks.start(), Path(sys.argv[1]))
'''

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
    names["main"](Ranks.alone(), folder)
    return read(folder, 1)[0]


@pytest.fixture(scope="module", params=[2, 4])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Weights, Told]]:
    folder = tmp_path_factory.mktemp("many")
    (folder / "script.py").write_text(SCRIPT)
    root = str(Path(next(iter(metanlp.__path__))).parent)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(request.param)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONPATH": root}
    env["CUDA_VISIBLE_DEVICES"] = ""  # there may be fewer GPUs than processes
    ended = subprocess.run(
        [*launch, str(folder / "script.py"), str(folder)], env=env, capture_output=True, text=True, timeout=180
    )
    assert ended.returncode == 0, ended.stderr
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
            torch.testing.assert_close(value, one[0][key], rtol=1e-6, atol=1e-6 * float(one[0][key].abs().max()))
        assert told["seven/False"][0] == pytest.approx(one[1]["seven/False"][0], rel=1e-6)
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
        assert told["same"] == [True, False]
        assert told["any"] == [False, True]


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
    assert told["same"] == [True, True]
    assert told["any"] == [False, True]


def test_passes_are_dealt_once_each() -> None:
    ranks = [Ranks(index, 3, torch.device("cpu")) for index in range(3)]
    dealt = [list(rank.mine(7)) for rank in ranks]
    assert dealt == [[0, 3, 6], [1, 4], [2, 5]]
    assert [rank.main for rank in ranks] == [True, False, False]


def part(number: int, size: float = 1.0) -> Part:
    return number, {"x": torch.full((2,), size)}, 1.0, 5


def test_passes_are_added_in_the_order_of_their_numbers() -> None:
    parts = [part(0, 1e8), part(1, 1.0), part(2, -1e8)]
    grad, loss, tokens = Ranks.alone().total(parts, {"x": torch.zeros(2)}, 3, exact=True)
    assert torch.equal(grad["x"].cpu(), torch.zeros(2))
    assert (loss, tokens) == (3.0, 15)


@pytest.mark.parametrize("numbers", [[1, 0], [0], [0, 0], [0, 1, 2]])
def test_a_pass_out_of_turn_is_refused(numbers: list[int]) -> None:
    def parts() -> Iterator[Part]:
        yield from map(part, numbers)

    with pytest.raises(ValueError, match="pass"):
        Ranks.alone().total(parts(), {"x": torch.zeros(2)}, 2, exact=True)


def test_arguments_stay_as_they_were() -> None:
    given, like = part(0), {"x": torch.zeros(2)}
    Ranks.alone().total([given], like, 1, exact=False)
    assert torch.equal(given[1]["x"], torch.ones(2))
    assert torch.equal(like["x"], torch.zeros(2))


def test_processes_that_did_not_join_are_refused() -> None:
    # As under `torchrun` without a GPU when somebody else started accelerate first, in its own silent way.
    code = (
        "import os, accelerate, metanlp.parallel as p; accelerate.PartialState(cpu=True); "
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


def test_importing_parallel_does_not_import_accelerate() -> None:
    code = "import sys, metanlp.parallel; print('accelerate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
