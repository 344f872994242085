# Everything happens in one environment, .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # compiled files make every process start sooner
.PHONY: demo test test-avx2 test-slow check format bench clean

demo: .venv/.run  ## set up and draw pictures with the built-in model
	$(BIN)/darkroom generate "a red apple" --seed 1 --count 4 --out pictures
	$(BIN)/darkroom generate "cat face" --seed 7 --out pictures/cat.png
	@echo "Look in pictures/"

SUITE := $(BIN)/pytest -n 2 --dist loadfile -q

test: .venv/.dev  ## the whole suite, under six minutes on two quiet cores
	$(SUITE)

# What computes, as on a processor without AVX-512 (most people's); elsewhere it changes nothing.
AVX2 = ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
NUMERICAL = $(addprefix tests/,adapters diffusion generation models nn ops training vision \
  test_acceleration.py weights/layouts weights/loras)

test-avx2: .venv/.dev  ## the numerical part once more, imitating a processor without AVX-512
	$(AVX2) $(SUITE) $(NUMERICAL)

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
