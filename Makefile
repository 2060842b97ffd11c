# Everything below works on a fresh clone with Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
THREADS ?= 2
export OMP_NUM_THREADS := $(THREADS)
# Waiting threads that spin for long starve each other where other processes share the cores.
export GOMP_SPINCOUNT := 10000
export TOKENIZERS_PARALLELISM := false

.PHONY: env demo test machines check docs cards leopard bench compare proof slow clean

env: .venv/.complete

.venv/.complete: pyproject.toml .ci/requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement .ci/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: env  ## meta-train, compare with the baselines, adapt to a task from a CSV: at most 5 minutes on 2 cores
	$(BIN)/python recipes/demo.py
	$(BIN)/metanlp adapt --from out/demo --examples recipes/tickets.csv --out out/demo/tickets --replace
	$(BIN)/metanlp predict --from out/demo/tickets recipes/tickets.txt

test: env  ## two files at a time, one thread each; what a file prepares is made once
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

machines: env  ## the tests of numbers with the kernels of other processors, on one thread and on two
	for kernels in default avx2; do for threads in 1 2; do \
		echo "$$kernels, $$threads threads:" && ATEN_CPU_CAPABILITY=$$kernels OMP_NUM_THREADS=$$threads $(BIN)/python -m pytest \
			-m "numbers and not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder || exit 1; \
	done; done

check: env  ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_layers.py

docs: env  ## the README and the reference as pages in out/docs; a warning is an error
	$(BIN)/python docs/tools/build.py out/docs

cards: env  ## write data_cards/ anew from the tasks
	$(BIN)/python docs/tools/task_cards.py

leopard: env  ## the tables of docs/results.md: train on GLUE, test on LEOPARD, about two hours on 2 cores; METANLP_DATA names the folder of both
	$(BIN)/accelerate launch recipes/maml_glue.py --model minilm --data $(METANLP_DATA)/glue --test $(METANLP_DATA)/leopard \
		--max-minutes 20 --test-rows 500 --out out/leopard
	$(BIN)/metanlp join --from out/leopard/baselines/protonet out/leopard/baselines/multitask --replace --out out/leopard_joined
	$(BIN)/metanlp evaluate --from out/leopard_joined out/leopard/baselines/protonet out/leopard/baselines/multitask \
		--test $(METANLP_DATA)/leopard --test-rows 500 --replace --out out/leopard_side_by_side

bench: env  ## the engine against a plain peft loop and the machine's limit, at most 25 minutes on 2 cores
	$(BIN)/python recipes/bench/bench_engine.py --data $(if $(METANLP_DATA),leopard/airline,mini) --replace

compare: env  ## every method on the embedded tasks at equal compute, about half an hour on 2 cores
	$(BIN)/python recipes/compare_all.py

proof: env $(if $(CHECK),,slow)  ## the checks of docs/reliability.md at their full number, hours; CHECK=3 one of them
	OMP_NUM_THREADS=1 $(BIN)/python tests/proof/run.py $(CHECK)

slow: env  ## the slow tests: kill loops, the wheel in an empty environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

clean:
	rm -rf out build dist *.egg-info
