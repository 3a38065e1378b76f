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
#   CUDA_WHEELS_ROOT=DIR NVIDIA's wheels for `make test-cuda-emulated`, `test-cuda` and `bench-cuda`: a folder with
#                        cu13/ and cudnn/ (default: the environment's, which gets them where there is nvcc)
#   CUDA_ARCHITECTURES   machine code of the CUDA plug-in (default: 90-real, one generation; 80-real;90 is a release's)
PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
WERROR ?= OFF
TORCH_INDEX ?=
CI ?=
CUDA_WHEELS_ROOT ?=
CUDA_ARCHITECTURES ?= 90-real

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
export CUDA_WHEELS_ROOT

.PHONY: demo test bench sanitize format stubs lint wheel build tools-demo tools-test tools-bench tools-build
.PHONY: test-cuda-emulated build-cuda test-cuda bench-cuda cuda-prebuilt tools-cuda
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

CUDA_RUN = --build $(BUILD) --architectures "$(CUDA_ARCHITECTURES)" $(if $(CI),--ci) $(if $(JOBS),--jobs $(JOBS))

# The CUDA plug-in without a GPU: nvcc's build, cuDNN's plans, and the kernels on the CPU.
test-cuda-emulated: tools-cuda
	$(PY) tests/cuda/emulated.py $(CUDA_RUN)

build-cuda: tools-cuda
	$(PY) tests/cuda/emulated.py $(CUDA_RUN) --only nvcc

# On a machine with a GPU: the tests and the benchmark on it.
test-cuda: build-cuda
	$(PY) tests/cuda/run_cuda.py test

bench-cuda: build-cuda
	$(PY) tests/cuda/run_cuda.py bench

# A folder that does the same on another machine, for PREBUILT_PYTHON (3.12).
PREBUILT_PYTHON ?= 3.12
cuda-prebuilt: tools-cuda
	$(PY) tests/cuda/prebuilt.py --venv $(VENV) --build $(BUILD)-prebuilt --deps $(BUILD)/deps --out dist/opsin-cuda \
	  --python-version $(PREBUILT_PYTHON) --architectures "$(CUDA_ARCHITECTURES)" $(if $(JOBS),--jobs $(JOBS))

# ASan + UBSan over all C++ tests, TSan over those of the thread pool and the engine's locks.
sanitize: tools-test
	$(PY) tests/run_all.py --build $(BUILD) --only sanitize --only tsan $(if $(JOBS),--jobs $(JOBS))

lint: tools-test
	$(PY) tests/run_all.py --build $(BUILD) --only lint

format: tools-test
	git ls-files -co --exclude-standard '*.h' '*.cpp' '*.cu' | xargs $(VENV)/bin/clang-format -i
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
tools-cuda:
	@$(BOOTSTRAP) cuda --torch-index "$(TORCH_INDEX)"

build: $(if $(filter demo test bench stubs,$(MAKECMDGOALS)),,tools-build)
	@$(VENV)/bin/cmake -S . -B $(BUILD) -G Ninja --log-level=WARNING $(CMAKE_FLAGS)
	@$(VENV)/bin/ninja -C $(BUILD) --quiet $(if $(JOBS),-j$(JOBS))
