# minifast: everything a fresh machine needs is Python 3.11 or newer and make. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUT    ?= out
BENCH  := .venv-bench
TORCH  ?= 2.8.0
OTHER  := .venv-torch-$(TORCH)
PART   ?= all
DEVICE ?= cpu
FASHION ?= /usr/share/datasets/fashion-mnist
MNIST  ?= data/mnist

.DEFAULT_GOAL := help
.PHONY: help train test fast versions torture examples lint types nbs bench science docs docs-check tour dist clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# the environment is made once, and again only when setup.cfg or pyproject.toml changes
$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("minifast needs Python 3.11 or newer; this is " + sys.version.split()[0] + \
	    ". Name another one: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "making $(VENV) (once; a few minutes, most of them for torch)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --editable '.[test,dev,docs]'
	@touch $@

train: $(READY)  ## the main job: MNIST sample, LR finder, two epochs of 1cycle, pictures in out/
	$(BIN)/python -m minifast --out $(OUT)

test: $(READY)  ## every test, the README's blocks and the notebooks included (four minutes, twelve on a slow machine)
	$(BIN)/python -m pytest -m "not slow" -n 2

fast: $(READY)  ## the tests without notebooks, README and subprocesses (minutes)
	$(BIN)/python -m pytest -m "not slow" -n 2 -q --ignore tests/test_notebooks.py --ignore tests/test_readme.py --ignore tests/test_main.py \
	    --ignore tests/test_site.py --ignore tests/test_pages.py

versions: $(OTHER)/.ready  ## the fast tests with another torch: make versions TORCH=2.8.0
	$(OTHER)/bin/python -m pytest -m "not slow" -n 2 -q --ignore tests/test_notebooks.py --ignore tests/test_readme.py --ignore tests/test_main.py \
	    --ignore tests/test_site.py --ignore tests/test_pages.py

$(OTHER)/.ready: setup.cfg
	@echo "making $(OTHER) (once; a few minutes)"
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/python -m pip install -qq torch==$(TORCH) torchvision --editable '.[test]'
	@touch $@

torture: $(READY)  ## runs that are cut anywhere and go on; bad input, files, outputs; state of all kinds (half an hour)
	$(BIN)/python tests/torture/torture.py --kills 300
	$(BIN)/python tests/torture/bad_input.py --examples 200
	$(BIN)/python tests/torture/fuzzed_files.py --examples 1000
	$(BIN)/python tests/torture/kept_state.py
	$(BIN)/python tests/torture/outputs.py
	$(BIN)/python tests/torture/fuzzed_exports.py --examples 500
	$(BIN)/python tests/torture/processes.py --kills 50 --stops 100

# what some of them need beside the tests' packages; each says what it reached
examples: $(READY)  ## run every example (minutes; MLflow, Optuna and Hugging Face are installed for them)
	$(BIN)/python -m pip install -qq --editable '.[jobs]'
	mkdir -p $(OUT)
	cd $(OUT) && for f in $(CURDIR)/examples/*.py; do echo "== $$f"; $(abspath $(BIN))/python $$f || exit 1; done

lint: $(READY)  ## style
	$(BIN)/ruff check .

types: $(READY)  ## strict types
	$(BIN)/mypy

nbs: $(READY)  ## run the notebooks and write their outputs into them
	$(BIN)/python nbs/run.py

docs: $(READY)  ## the site, with its search, in out/site (under a minute)
	rm -rf $(OUT)/site
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs . $(OUT)/site
	@echo "the site is $(OUT)/site/index.html"

docs-check: docs $(VENV)/.browser  ## the site in Chromium: console, search, widths, contrast (minutes)
	$(BIN)/python docs/check.py $(OUT)/site

$(VENV)/.browser: $(READY)
	@command -v chromium > /dev/null || { echo "Chromium is missing: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pip install -qq --editable '.[browser]'
	@touch $@

tour: $(READY)  ## from an empty loop to Learner in ten steps that run (seconds)
	$(BIN)/python docs/run.py docs/tour.md

dist: $(READY)  ## wheel and sdist in dist/, tried out in an empty environment (minutes, most of them for torch)
	rm -rf dist build/dist
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/dist
	build/dist/bin/python -m pip install -qq dist/*.whl
	cd build/dist && bin/python -I ../../docs/run.py ../../README.md
	build/dist/bin/python -m pip check

# beside the packages pinned there, the peers get the very versions that minifast is tested with
$(BENCH)/.ready: $(READY) tests/bench/requirements.txt
	@echo "making $(BENCH) (once; a few minutes)"
	$(PYTHON) -m venv $(BENCH)
	$(BIN)/python -m pip freeze --exclude-editable > $(BENCH)/constraints.txt
	$(BENCH)/bin/python -m pip install --quiet --requirement tests/bench/requirements.txt \
	    --constraint $(BENCH)/constraints.txt --editable .
	@touch $@

bench: $(BENCH)/.ready  ## minifast beside its peers (about half an hour); PART=overhead,imports,... and DEVICE=cuda choose
	$(BENCH)/bin/python tests/bench --part $(PART) --device $(DEVICE)

science: $(READY)  ## the claims about 1cycle, run with seeds (hours; goes on where it was cut off); PART=1,3,... chooses
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m science --part $(PART) --fashion $(FASHION) --mnist $(MNIST)

clean:  ## remove the environment, the outputs and the caches
	rm -rf $(VENV) $(BENCH) .venv-torch-* $(OUT) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
