# Everything a developer does. Each target sets up the virtual environment it needs, once.
#   make test PYTHON=python3.12 VENV=.venv312     uses another Python

PYTHON ?= python3
VENV   ?= .venv
BUILD  ?= build

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

DIGITS := examples/digits
DEMO := -m $(DIGITS)/digits.prototxt -w $(DIGITS)/digits.caffemodel -l 0.01 --out $(BUILD)/demo

SCENES := examples/digit_scenes
DEMO_DETECTION := -m $(SCENES)/digit_scenes.prototxt -w $(SCENES)/digit_scenes.caffemodel -d 1 -l 0.01 \
  --out $(BUILD)/demo-detection

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-detection test test-slow check docs proto bench digits digit-scenes clean

help:  ## list the targets
	@echo "distcalib: INT8 calibration of Caffe models, accuracy measured"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(VENV)/.run  ## calibrate examples/digits into build/demo
	$(BIN)/distcalib calibrate $(DEMO)

demo-detection: $(VENV)/.run  ## calibrate the SSD of examples/digit_scenes into build/demo-detection
	$(BIN)/distcalib calibrate $(DEMO_DETECTION)

test: $(VENV)/.test  ## the tests, but the slow ones
	$(BIN)/python -m scripts.tools.run_tests -m "not slow"

test-slow: $(VENV)/.test  ## the slow tests, and on Ray those that make test runs on forked actors
	$(BIN)/python -m pytest -m "slow or actors" --on-ray

check: $(VENV)/.dev  ## ruff and mypy --strict
	$(BIN)/ruff check distcalib tests scripts
	$(BIN)/mypy --strict distcalib tests scripts

docs: $(VENV)-docs/.docs  ## the site of the docs into build/site; a link that leads nowhere ends it
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --quiet --strict

proto: $(VENV)-proto/.proto  ## make caffe_pb2 from caffe.proto
	$(VENV)-proto/bin/python scripts/tools/make_proto.py

bench: $(VENV)/.run  ## measure the costs that README and docstrings tell; wants an idle machine
	$(BIN)/python -m scripts.bench.bench_evaluate
	$(BIN)/python -m scripts.bench.bench_dispatch
	$(BIN)/python -m scripts.bench.bench_data
	$(BIN)/python -m scripts.bench.bench_detections

digits: $(VENV)/.examples  ## train examples/digits again (downloads PyTorch)
	$(BIN)/python -m scripts.examples.make_digits

digit-scenes: $(VENV)/.examples  ## train examples/digit_scenes again (downloads PyTorch)
	$(BIN)/python -m scripts.examples.make_digit_scenes

clean:  ## remove what make made
	rm -rf $(VENV) $(VENV)-proto $(VENV)-docs $(BUILD) *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find distcalib tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp a set of packages; each is made again when pyproject.toml is newer.
$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	  "make: " + sys.executable + " is Python %d.%d; distcalib needs 3.10 or later: make PYTHON=..." % sys.version_info[:2])'
	@echo "$(VENV): a virtual environment of $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.base
	@echo "$(VENV): installing distcalib and what it needs (OpenVINO, Ray, ...)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "$(VENV): installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	@echo "$(VENV): installing what the checks need"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.examples: $(VENV)/.run
	@echo "$(VENV): installing what training the example needs"
	@$(PIP) --editable '.[examples]'
	@touch $@

# On its own: protoc 4.25 makes code that every later protobuf reads, but its package needs protobuf 4.
$(VENV)-proto/.proto:
	@echo "$(VENV)-proto: installing protoc"
	@$(PYTHON) -m venv $(VENV)-proto
	@$(VENV)-proto/bin/python -m pip install --quiet --disable-pip-version-check \
	  'grpcio-tools==1.62.*' 'setuptools<81' numpy
	@touch $@

# On its own too: the docs are read from the sources, and nothing of the package needs what builds them.
$(VENV)-docs/.docs:
	@echo "$(VENV)-docs: installing MkDocs"
	@$(PYTHON) -m venv $(VENV)-docs
	@$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check \
	  'mkdocs>=1.6,<2' 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.27'
	@touch $@
