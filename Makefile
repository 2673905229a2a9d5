# Everything a fresh machine with python3, venv and make needs.
.PHONY: scenarios setup components demo test check bench drill sabotage pictures lock
# Containers often switch bytecode off; then every process compiles everything again.
unexport PYTHONDONTWRITEBYTECODE
PY ?= python3
B := .venv/bin

.venv/bin/uv:
	$(PY) -m venv .venv
	$(B)/pip install -q --disable-pip-version-check uv==0.13.8

.venv/.ok: requirements.lock pyproject.toml | .venv/bin/uv
	$(B)/uv pip install -q --compile-bytecode --python $(B)/python --require-hashes -r requirements.lock
	$(B)/uv pip install -q --python $(B)/python --no-build-isolation --no-deps -e .
	touch $@

setup: .venv/.ok

demo: setup
	$(B)/fangxin demo

# What the tests start and no wheel brings. Where it cannot be had, its test fails and says how to get it.
PARTS := softhsm2-util pdfsig qpdf certutil node
PACKAGES := softhsm2 poppler-utils qpdf libnss3-tools nodejs
components:
	@(for one in $(PARTS); do command -v $$one >/dev/null || exit 1; done) || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get install -qq -y --no-install-recommends $(PACKAGES) >/dev/null 2>&1 || \
	    { apt-get update -qq && apt-get install -qq -y --no-install-recommends $(PACKAGES) >/dev/null; }; } || \
	  echo "$(PACKAGES): not all could be installed; the tests that need them will fail"

test: setup components
	$(B)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

check: setup components
	$(B)/ruff format --check .
	$(B)/ruff check .
	$(B)/mypy
	$(B)/lint-imports
	$(B)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder -m "not slow and not drill"

# make bench CASE=keys runs one of bench/, without CASE each of them
bench: setup
	for one in $(or $(CASE),$(basename $(notdir $(wildcard bench/[a-z]*.py)))); do $(B)/python bench/$$one.py; done

# docs/scenarios.md: the closing's requirements, and the tests whose marks name them
scenarios: setup
	$(B)/python tests/scenarios.py

drill: setup
	$(B)/python -m pytest -q -m drill
	$(B)/python tests/journeys/worker_drill.py
	$(B)/python -m pytest -q tests/interrupted_drill.py
	$(B)/python -m pytest -q tests/process/months_drill.py
	$(B)/python tests/journeys/crash_drill.py
	$(B)/python tests/journeys/scale_drill.py
	$(B)/python tests/journeys/scale_drill.py --command
	$(B)/python tests/keys/vault_drill.py
	$(B)/python tests/evidence/mutation_drill.py
	$(B)/python tests/evidence/browser_drill.py
	$(B)/python tests/medium/loop_drill.py
	$(B)/python tests/process/payments_drill.py
	$(B)/python tests/residue/random_drill.py
	$(B)/python tests/residue/damage_drill.py

# the pictures of our own pages in the README
pictures: setup components
	$(B)/python docs/pictures/draw.py

# The product's own mutation test: one step left out, and somebody must notice. ONLY=parquet runs those with it;
# LOG=HOME writes into the ledger of a home how many of all were noticed, for its reports.
sabotage: setup
	$(B)/python tests/sabotage/sabotage_drill.py $(ONLY) $(addprefix --log ,$(LOG))

lock: .venv/bin/uv
	$(B)/uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-header --no-annotate -q -o requirements.lock
