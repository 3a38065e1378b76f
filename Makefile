# `make demo` and `make test` each work as the first command in a fresh clone: cpp/cmake/bootstrap.py gets
# what is missing. Variables:
#   PYTHON=python3       the interpreter that the virtual environment is made from
#   VENV=.venv           the virtual environment; one that has everything is used as it is
#   BUILD=build          the build folder; $(BUILD)/python holds an importable package
#   JOBS=N               compile jobs (default: Ninja's)
#   WERROR=ON            compiler warnings are errors
#   TORCH_INDEX=URL      package index to get PyTorch's CPU build from, for `make test` only (default: pip's
#                        own if it has a CPU build, else https://download.pytorch.org/whl/cpu)
#   CI=1                 `make test` fails where a tool, PyTorch or a machine feature is missing
PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
WERROR ?= OFF
TORCH_INDEX ?=
CI ?=

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

PY := $(VENV)/bin/python
CMAKE_FLAGS = -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja -DPython_EXECUTABLE=$(abspath $(PY)) \
  -DOPSIN_DEPS_DIR=$(abspath $(BUILD))/deps -DOPSIN_BUILD_PYTHON=ON -DOPSIN_WERROR=$(WERROR) \
  -DOPSIN_BUILD_TESTS=$(if $(filter test,$(MAKECMDGOALS)),ON,OFF)
BOOTSTRAP = $(PYTHON) cpp/cmake/bootstrap.py --venv $(VENV) --deps $(BUILD)/deps
export PYTHONPATH := $(abspath $(BUILD))/python
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_NOHASHDIR ?= 1

.PHONY: demo test bench sanitize format stubs lint wheel build tools-demo tools-test tools-bench tools-build
.NOTPARALLEL:

# The accuracy, printed when the training ends, is repeated as the last line.
demo: tools-demo build
	@$(PY) -m opsin train --data digits --out runs/digits --overwrite | tee $(BUILD)/demo.txt
	@$(PY) -m opsin predict --run runs/digits runs/digits/samples/*.png
	@tail -n 1 $(BUILD)/demo.txt

test: tools-test build
	$(PY) tests/run_all.py --build $(BUILD) $(if $(CI),--ci) $(if $(JOBS),--jobs $(JOBS))

bench: tools-bench build
	$(PY) bench/run.py

# ASan + UBSan over all C++ tests, TSan over those of the thread pool and the engine's locks.
sanitize: tools-test
	$(PY) tests/run_all.py --build $(BUILD) --only sanitize --only tsan $(if $(JOBS),--jobs $(JOBS))

lint: tools-test
	$(PY) tests/run_all.py --build $(BUILD) --only lint

format: tools-test
	git ls-files -co --exclude-standard '*.h' '*.cpp' | xargs $(VENV)/bin/clang-format -i
	$(VENV)/bin/ruff check --fix-only --quiet .
	$(VENV)/bin/ruff format --quiet .

# The types of the C++ module for Python's checkers, from the schemas of the ops; they are checked in.
stubs: tools-test build
	$(PY) bindings/make_stubs.py

wheel: tools-test
	$(PY) -m build --no-isolation --outdir dist .

tools-demo:
	@$(BOOTSTRAP) demo
tools-test:
	@$(BOOTSTRAP) $(if $(CI),ci,test) --torch-index "$(TORCH_INDEX)"
tools-bench:
	@$(BOOTSTRAP) bench --torch-index "$(TORCH_INDEX)"
tools-build:
	@$(BOOTSTRAP) build

build: $(if $(filter demo test bench stubs,$(MAKECMDGOALS)),,tools-build)
	@$(VENV)/bin/cmake -S . -B $(BUILD) -G Ninja --log-level=WARNING $(CMAKE_FLAGS)
	@$(VENV)/bin/ninja -C $(BUILD) --quiet $(if $(JOBS),-j$(JOBS))
