# Two commands matter: `make demo` and `make test`. Both set up everything on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Small tensors want one thread each; parallelism comes from processes.
export OMP_NUM_THREADS ?= 1
WORKERS ?= 2
OUT ?= demo-evidence

.PHONY: help setup demo picture test bench check format wheel clean

help:  ## show the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(STAMP)  ## create .venv and install expunge with everything its tests need

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[pdf,tune,llm,arrow,diffusion,dev]'
	touch $(STAMP)

demo: setup  ## forget one person from a trained model, with a proof and without, and write the evidence
	$(BIN)/expunge demo --out $(OUT)

picture: setup  ## make docs/images/report.png again: the first page of the demo's report
	rm -rf build/picture build/picture.private
	$(BIN)/expunge demo --out build/picture
	$(BIN)/python -c 'import io, json; from PIL import Image; from expunge.report.pdf import first_page; \
	  record = json.load(open("build/picture/evidence.json")); \
	  Image.open(io.BytesIO(first_page(record))).convert("RGB").quantize(64).save("docs/images/report.png", optimize=True)'

test: setup  ## tiers 1-3 and the fast recipes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow and not gpu'

bench: setup  ## what takes minutes: slow tests and speed ratios
	$(BIN)/python -m pytest -m slow
	for script in $(filter-out bench/comparison.py,$(wildcard bench/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

check: setup  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup  ## write the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: setup  ## build the wheel, install it in an empty environment, import every module there
	rm -rf dist build/wheel-check
	$(BIN)/python -m build --wheel --outdir dist
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/wheel-check && bin/python ../../tests/import_every_module.py && bin/expunge --help > /dev/null

clean:  ## remove what make made
	rm -rf $(VENV) dist build demo-evidence demo-evidence.private .pytest_cache .ruff_cache .hypothesis
