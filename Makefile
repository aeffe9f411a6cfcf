# Everything runs in a virtual environment of its own, .venv. `make demo` and `make test` need only Python and a C compiler.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = setup.py pyproject.toml $(wildcard csrc/*.[ch] cnnlib/backends/cpu/*.px[id] cnnlib/backends/cpu/*.pyx)

# Idle threads of other libraries must not spin on cores that a test needs.
export OMP_WAIT_POLICY = passive

.PHONY: demo test test-slow tsan lint bench clean

demo: $(VENV)/.demo  ## train LeNet-5 on real digits, compare the backends, write a picture into demo/
	$(BIN)/python examples/demo.py --out demo

test: $(VENV)/.dev  ## the whole suite, under 10 minutes on two cores
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 -m "not slow" tests

test-slow: $(VENV)/.dev  ## the trainings whose figures docs/labs.md keeps
	$(BIN)/python -m pytest -q -m slow tests

tsan: build/tsan/threads  ## the thread pool and the kernels of every family under the thread sanitizer
	TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 build/tsan/threads

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: $(VENV)/.dev  ## every operation and training step against PyTorch where it is installed, else against the textbook
	$(BIN)/python -m benchmarks.cpu

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.demo: $(BIN)/python $(SOURCES)
	CNNLIB_REQUIRE_COMPILED=1 $(BIN)/python -m pip install -q -e ".[viz,data]"
	@touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	CNNLIB_REQUIRE_COMPILED=1 $(BIN)/python -m pip install -q -e ".[dev]"
	@touch $@

TSAN = $(CC) -std=gnu11 -O1 -g -pthread -fsanitize=thread -Wall -Wextra -Wno-psabi -Icsrc
TABLE = -c csrc/kernels.c -DVECTOR_BYTES=16 -DREAL=$(1) -DREAL_IS_FLOAT=$(2) -DTABLE=cnn_driver_$(3) -o build/tsan/$(3).o
build/tsan/threads: tests/csrc/threads_driver.c $(wildcard csrc/*.[ch])
	mkdir -p build/tsan
	$(TSAN) $(call TABLE,float,1,f32)
	$(TSAN) $(call TABLE,double,0,f64)
	$(TSAN) csrc/threads.c tests/csrc/threads_driver.c build/tsan/f32.o build/tsan/f64.o -lm -o $@

clean:
	rm -rf build dist *.egg-info cnnlib/_csrc cnnlib/backends/cpu/_kernels.c cnnlib/backends/cpu/_kernels*.so
