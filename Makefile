# `make` alone lists the targets. Everything runs in .venv, made on first use from requirements/.

export PATH := $(CURDIR)/.venv/bin:$(PATH)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help .venv demo test test-faults test-tasks test-cluster test-all lint check bench soak clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.venv: .venv/.installed ## the pinned environment, made anew when requirements/ changes

.venv/.packages: requirements/lock.txt requirements/torch.txt requirements/deepspeed.txt
	python=$$(requirements/python.sh) && "$$python" -m venv --clear .venv
	$(PIP) --quiet --no-deps --require-hashes -r requirements/lock.txt
	$(PIP) -r requirements/torch.txt
	$(PIP) --quiet --no-deps --no-build-isolation --require-hashes -r requirements/deepspeed.txt
	@touch $@

.venv/.installed: .venv/.packages pyproject.toml
	$(PIP) --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

.venv/.triton: .venv/.installed requirements/triton.txt
	$(PIP) --quiet --no-deps --require-hashes -r requirements/triton.txt
	@touch $@

demo: .venv ## text to a distilled, measured student: runs/demo
	$(BIN)/stillhouse demo

# The tests bring what they need: once installed, no network.
test test-faults test-tasks test-cluster test-all check: export HF_HUB_OFFLINE := 1
test test-faults test-tasks test-cluster test-all check: export WANDB_MODE := offline
test test-faults test-tasks test-cluster test-all check: export OMP_NUM_THREADS := 1
WORKERS := -n 2

test: .venv .venv/.triton ## every test but those of test-faults, test-tasks and test-cluster
	$(BIN)/python -m pytest -m 'not cluster and not faults and not tasks' $(WORKERS)

test-faults: .venv ## kills, lost ranks, full disks and failing servers in whole runs
	$(BIN)/python -m pytest -m faults $(WORKERS)

test-tasks: .venv ## task models and runs, comparisons, retention reports, exported and published models
	$(BIN)/python -m pytest -m 'tasks and not cluster' $(WORKERS)

test-cluster: .venv ## torchrun, and a real Slurm of three hosts, started on this machine (root, Debian's Slurm)
	$(BIN)/python -m pytest -m cluster

# One worker more: it runs the Slurm tests first, which wait as much as they compute.
test-all: .venv .venv/.triton ## the four above in one pytest, as CI runs them
	$(BIN)/python -m pytest -n 3

lint: .venv ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint ## format, lint, types, the import rule, fast tests
	$(BIN)/python -m pytest -q -m 'not slow' $(WORKERS)

bench: .venv ## speed and memory against bare loops, as JSON
	$(BIN)/stillhouse bench --json tests/benchmarks/results/bench.json --picture tests/benchmarks/results/bench.png
	$(BIN)/python tests/benchmarks/bench_train.py
	$(BIN)/python tests/benchmarks/bench_tasks.py

soak: .venv ## runs killed 100 times, and jobs on a real Slurm hurt 25 times, against ones left alone (SEED=7 KILLS=100 FAULTS=25)
	$(BIN)/python tests/soak/kills.py --kills $(or $(KILLS),100) --seed $(or $(SEED),7)
	$(BIN)/python tests/soak/slurm_kills.py --faults $(or $(FAULTS),25) --seed $(or $(SEED),7)

clean: ## remove the environment and every cache here; runs/ and shards/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
