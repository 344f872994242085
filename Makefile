# Everything happens in one environment, .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: demo test test-slow check format bench clean

demo: .venv/.run  ## set up and draw pictures with the built-in model
	$(BIN)/darkroom generate "a red apple" --seed 1 --count 4 --out pictures
	$(BIN)/darkroom generate "cat face" --seed 7 --out pictures/cat.png
	@echo "Look in pictures/"

test: .venv/.dev  ## the whole suite, under ten minutes on two cores
	$(BIN)/pytest -n 2 -q

test-slow: .venv/.dev  ## full-size comparisons with the reference libraries
	$(BIN)/pytest -q -m slow

check: .venv/.dev  ## ruff, pyright, import-linter
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.dev  ## side by side with diffusers; writes benchmarks/results
	$(BIN)/python benchmarks/run.py

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@ .venv/.run

clean:
	rm -rf .venv build dist src/*.egg-info
