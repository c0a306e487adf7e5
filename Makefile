# `make demo` and `make test` set up everything on a fresh machine: Python 3.11+, make and a C compiler are enough.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
TF4 = .tf4

.PHONY: demo test test-slow test-full test-tf4 test-machines test-machines-short lint screenshots install clean

# The installed package is a copy, never the checkout: an import that only works here cannot pass. Once the dependencies are there,
# nothing asks the network: what builds the package is in the environment.
install: $(BIN)/.dependencies
	@rm -rf build
	$(PIP) install --quiet --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build

$(BIN)/.dependencies: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip 'setuptools>=77'
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt '.[test]'
	@rm -rf build
	touch $@

demo: install
	$(BIN)/valueshift demo --output demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not real_shape and not full" tests

test-slow: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "(slow or real_shape) and not full" tests

test-full: install
	$(BIN)/python -m pytest -m full tests

# The tests that compare numbers, with the kernels of other processors and with two threads: a table of settings, each passed or FAILED.
test-machines: install
	$(BIN)/python tests/machines.py

test-machines-short: install
	$(BIN)/python tests/machines.py --short

# The newest transformers 4 that lm-eval accepts, laid over the environment: the numbers have to be the same under both.
$(TF4)/.installed: constraints.txt
	$(PIP) install --quiet --no-deps --target $(TF4) transformers==4.57.6 'huggingface_hub<1' 'tokenizers<0.23' 'datasets<4.6' httpx httpcore fsspec
	touch $@

test-tf4: install $(TF4)/.installed
	PYTHONPATH="$(CURDIR)/$(TF4)" $(BIN)/python -m pytest -m "not slow and not real_shape and not full" tests/test_hook.py tests/test_harness.py tests/test_scoring.py tests/test_chunked_loss.py tests/test_adapters.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy -p valueshift
	$(BIN)/lint-imports

# The pictures of docs/images/: MLflow's pages and the report of a simulated study, in headless Chromium.
screenshots: install
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf build dist *.egg-info $(VENV) $(TF4)
