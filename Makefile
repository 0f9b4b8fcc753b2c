# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := runs/demo
RULE := runs/demo-recommended
NODE_MODULES := tests/portability/node_modules
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo serve test lock test-install test-portability test-serving test-browser test-ray test-long test-hostile test-lowest test-models mutation load hostile check study study-cost rules choosing tasks prices-study fine-tuning results benchmarks clean
help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(INSTALLED): pyproject.toml constraints.txt hashes.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement hashes.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@

demo: $(RUN)/verify-scatter.json $(RUN)/verify-sorted.json $(RUN)/bench.json $(RULE)/bench.json  ## train on real digits, export, verify and bench, into runs/demo; then train and bench by the recommended rule
	@echo 'Done; look at $(RUN)/figures and $(RUN)/bench.png, and at $(RULE) for the recommended rule. make clean starts over.'

serve: $(RUN)/sorted.onnx  ## serve the demo's model and a page to draw digits on; WEB_RUNTIME=DIR runs it in the browser too
	$(BIN)/smx serve $< $(if $(WEB_RUNTIME),--web-runtime $(WEB_RUNTIME))

$(RUN)/model.pt: | $(INSTALLED)
	$(BIN)/smx train --resume --out $(RUN)

$(RUN)/scatter.onnx: $(RUN)/model.pt
	$(BIN)/smx export $< $@ --layout scatter

$(RUN)/sorted.onnx: $(RUN)/model.pt
	$(BIN)/smx export $< $@ --layout sorted

$(RUN)/verify-%.json: $(RUN)/model.pt $(RUN)/%.onnx
	$(BIN)/smx verify $^ --json $@

$(RUN)/bench.json: $(RUN)/model.pt
	$(BIN)/smx bench $< --batch-sizes 1,16,128 --json $@ --plot $(RUN)/bench.png

$(RULE)/model.pt: | $(INSTALLED)
	$(BIN)/smx train --resume --selection recommended --out $(RULE)

$(RULE)/bench.json: $(RULE)/model.pt
	$(BIN)/smx bench $< --layouts sorted --baselines relu --batch-sizes 1,128 --json $@

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest -n 4 --dist worksteal

# Without PyTorch, of which each index has builds of its own, and what only it needs.
WITHOUT := torch; python_version < "3"\ntorchvision; python_version < "3"\ntriton; python_version < "3"\n
lock: $(INSTALLED)  ## after a change of constraints.txt: write the hashes of what demo and test install; downloads uv
	$(BIN)/python -m pip install --quiet uv
	printf '$(WITHOUT)' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-header --constraint constraints.txt --override /dev/stdin --extra train --extra dev --output-file hashes.txt pyproject.toml

test-install: $(INSTALLED)  ## install the built wheel without torch and use it, which downloads packages
	$(BIN)/python -m pytest -m install

test-portability: $(NODE_MODULES)/.installed  ## run exported files in OpenVINO and in node, which downloads packages
	$(BIN)/python -m pytest -m portability

$(NODE_MODULES)/.installed: $(INSTALLED) tests/portability/package.json
	@command -v npm > /dev/null || { echo 'npm is needed: install Node.js 20 or later, with npm'; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[portability]'
	npm install --prefix tests/portability --no-package-lock --ignore-scripts --loglevel error
	touch $@

test-serving: $(INSTALLED)  ## load, replace, end and search a server, and draw on its page in Chromium where that is at hand; downloads packages
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[serving-tests]'
	$(BIN)/python -m pytest -m serving

test-browser: $(INSTALLED)  ## look at reports in Chromium, at the width of a desktop and of a phone; downloads packages
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[serving-tests]'
	$(BIN)/python -m pytest -m browser

test-ray: $(INSTALLED)  ## train a grid on a local Ray cluster and kill a worker; downloads packages
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python -m pytest -m ray

test-long: $(INSTALLED)  ## what takes minutes: 300 random networks, kills, every benchmark in its smallest form; about half an hour
	$(BIN)/python -m pytest -m long

test-hostile: $(INSTALLED)  ## damage and edit files, kill commands, take memory and disk from them, about an hour
	$(BIN)/python -m tests.hostile --json $(RESULTS)/hostile.json
	$(BIN)/python benchmarks/tables.py

test-lowest: ## run the tests with the lowest versions that pyproject.toml allows, in .venv-lowest; downloads gigabytes
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable '.[train,dev]'
	.venv-lowest/bin/python -m pytest -n 4 --dist worksteal
	.venv-lowest/bin/uv pip freeze --quiet --python .venv-lowest --exclude-editable > $(RESULTS)/lowest-versions.txt

test-models: $(INSTALLED)  ## take networks of timm and transformers through everything, and renew docs/models.md: half an hour; downloads packages
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[models]'
	$(BIN)/python -m pytest -m models
	$(BIN)/python benchmarks/models.py --json $(RESULTS)/models.json
	$(BIN)/python benchmarks/tables.py

mutation: $(INSTALLED)  ## change the code in small ways and count what no test notices, about an hour; downloads mutmut
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutation]'
	$(BIN)/python benchmarks/mutation.py --json $(RESULTS)/mutation.json
	$(BIN)/python benchmarks/tables.py

load: $(INSTALLED)  ## load smx serve with wrk for half an hour, with nothing else running; KSERVE=PYTHON compares with kserve as installed for that interpreter
	@command -v wrk > /dev/null || { echo 'wrk is needed: install it, as Debian has it'; exit 1; }
	$(BIN)/python benchmarks/serving_load.py --waits 0,1,2,5 --connections 1,8,64 --seconds 10 --block 5 --json $(RESULTS)/serving-wait.json
	$(BIN)/python benchmarks/serving_load.py $(if $(KSERVE),--kserve $(KSERVE)) --soak 600 --json $(RESULTS)/serving-load.json
	$(BIN)/python benchmarks/tables.py

hostile: $(INSTALLED)  ## send thousands of hostile requests to smx serve, about a minute
	$(BIN)/python benchmarks/serving_hostile.py --requests 2000 --json $(RESULTS)/serving-hostile.json

check: $(INSTALLED)  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The figures in README.md and docs/results; MNIST is downloaded unless SMX_DATA_DIR has it.
RESULTS := docs/results
MNIST := runs/mnist
STUDY := runs/mnist-study
SEEDS ?= 0,3,4
study: $(INSTALLED)  ## report the paper's study on MNIST from docs/results; SEEDS=5 trains one more seed first, about an hour
	$(BIN)/smx sweep --config short --seeds $(SEEDS) --out $(STUDY) --jobs 2 --known $(RESULTS)/mnist-study.parquet --no-report
	$(BIN)/smx sweep --config short --seeds 0 --set protocol=author --set method=smartmixed --out $(STUDY) --jobs 2 --known $(RESULTS)/mnist-study.parquet --no-report
	for method in smartmixed relu; do \
	    $(BIN)/smx sweep --config representative --seeds 0 --set protocol=standard --set method=$$method --out $(STUDY) --known $(RESULTS)/mnist-study.parquet --no-report || exit 1; \
	done
	$(BIN)/smx sweep --config controls --out $(STUDY) --jobs 2 --known $(RESULTS)/mnist-study.parquet --collect $(STUDY)/all.parquet
	cp $(STUDY)/all.parquet $(RESULTS)/mnist-study.parquet
	$(BIN)/smx report $(RESULTS)/mnist-study.parquet --figures $(STUDY)/figures
	cp $(STUDY)/figures/mrr.svg docs/images/study-mrr.svg
	cp $(STUDY)/figures/depth.svg docs/images/study-depth.svg

rules: $(INSTALLED)  ## both rules of choosing beside fixed activations, on two networks: accuracy of five seeds, and latency; about 45 minutes
	$(BIN)/python benchmarks/rules.py --out runs/rules --json $(RESULTS)/rules.json
	$(BIN)/python benchmarks/rules.py --grid largest --out runs/rules --json $(RESULTS)/rules-largest.json
	$(BIN)/python benchmarks/tables.py

choosing: $(INSTALLED)  ## go on with the rules of choosing on fifteen networks, from docs/results: hours
	$(BIN)/smx sweep --config choosing --out runs/choosing --jobs 2 --known $(RESULTS)/mnist-choosing.parquet --no-report --collect runs/choosing/all.parquet
	cp runs/choosing/all.parquet $(RESULTS)/mnist-choosing.parquet
	$(BIN)/python benchmarks/choosing.py $(RESULTS)/mnist-choosing.parquet --json $(RESULTS)/choosing.json --plot docs/images/choosing.png
	$(BIN)/python benchmarks/tables.py

tasks: $(INSTALLED)  ## both rules of choosing, their controls and all fixed activations on eight small tasks, eight seeds: about twenty minutes
	$(BIN)/python benchmarks/tasks.py --out runs/tasks --json $(RESULTS)/tasks.json
	$(BIN)/python benchmarks/tables.py

PRICES := runs/mnist-prices
prices-study: $(INSTALLED)  ## what prices, small groups and rules do to accuracy and latency on MNIST: about an hour
	$(BIN)/smx sweep --config prices --out $(PRICES) --jobs 2 --no-report
	$(BIN)/smx sweep --out $(PRICES) --latency --collect $(PRICES)/all.parquet
	cp $(PRICES)/all.parquet $(RESULTS)/mnist-prices.parquet
	$(BIN)/smx report $(RESULTS)/mnist-prices.parquet --figures $(PRICES)/figures
	cp $(PRICES)/figures/trade.svg docs/images/prices.svg
	cp $(PRICES)/cells/ab664c9e65c6/model.pt $(PRICES)/paper.pt
	cp $(PRICES)/cells/561248d5531a/model.pt $(PRICES)/matched.pt
	cp $(PRICES)/cells/c0cc4e76379c/model.pt $(PRICES)/matched-one-group.pt
	$(BIN)/python benchmarks/fastest.py $(addprefix $(PRICES)/,matched-one-group.pt matched.pt paper.pt) --json $(RESULTS)/fastest-mnist.json
	$(BIN)/python benchmarks/tables.py

fine-tuning: $(INSTALLED)  ## what becomes of trained networks whose neurons choose anew, on digits and MNIST: about six minutes
	$(BIN)/python benchmarks/fine_tuning.py --json $(RESULTS)/fine-tuning.json
	$(BIN)/python benchmarks/tables.py

results: $(INSTALLED)  ## train on MNIST and renew docs/results and docs/images, about a quarter of an hour
	$(BIN)/smx train --resume --data mnist --hidden 512,256,128 --phase1-epochs 5 --phase2-epochs 5 --out $(MNIST) --json $(RESULTS)/mnist-train.json
	for layout in scatter sorted; do \
	    $(BIN)/smx export $(MNIST)/model.pt $(MNIST)/$$layout.onnx --layout $$layout --json $(RESULTS)/mnist-export-$$layout.json && \
	    $(BIN)/smx verify $(MNIST)/model.pt $(MNIST)/$$layout.onnx --json $(RESULTS)/mnist-verify-$$layout.json || exit 1; \
	done
	for precision in float16 int8; do \
	    $(BIN)/smx export $(MNIST)/model.pt $(MNIST)/$$precision.onnx --layout sorted --precision $$precision --json $(RESULTS)/mnist-export-$$precision.json || exit 1; \
	done
	$(BIN)/smx train --resume --data mnist --hidden 512,256,128 --activation relu --phase1-epochs 5 --phase2-epochs 5 --out $(MNIST)-relu --json $(RESULTS)/mnist-relu-train.json
	$(BIN)/smx bench $(MNIST)/model.pt --json $(RESULTS)/mnist-bench.json --plot docs/images/mnist-bench.png
	$(BIN)/smx train --resume --out runs/digits --json $(RESULTS)/digits-train.json
	$(BIN)/smx train --resume --data mnist --model cnn --phase1-epochs 3 --phase2-epochs 3 --lr 1e-3 --out runs/mnist-cnn --json $(RESULTS)/mnist-cnn-train.json
	cp $(MNIST)/figures/shares.png docs/images/mnist-shares.png
	$(BIN)/python benchmarks/tables.py

study-cost: $(INSTALLED)  ## add up what the cells that make study has trained here have cost; SEEDS=4
	$(BIN)/python benchmarks/study_cost.py $(STUDY) --config short --seeds $(SEEDS) --json $(RESULTS)/study-cost.json

benchmarks: $(INSTALLED)  ## measure again what docs/ says of forms, opsets, large exports, the bench itself, tuning, training steps, prices and the rule of auto, about two hours and a half
	$(BIN)/python benchmarks/layouts.py --json $(RESULTS)/layouts.json
	$(BIN)/python benchmarks/opsets.py --json $(RESULTS)/opsets.json
	$(BIN)/python benchmarks/large_export.py --json $(RESULTS)/large-export.json
	$(BIN)/python benchmarks/resolution.py --json $(RESULTS)/resolution.json
	$(BIN)/python benchmarks/tune_check.py --json $(RESULTS)/tune-check.json
	$(BIN)/smx bench-train --compile --baselines relu,selu --selection recommended --rounds 40 --json $(RESULTS)/train-step.json
	$(BIN)/python benchmarks/commit_rule.py --json $(RESULTS)/commit-rule.json
	$(BIN)/python benchmarks/install_size.py --json $(RESULTS)/install-size.json
	$(BIN)/smx price --out smx/prices.json --json $(RESULTS)/prices.json
	$(BIN)/python benchmarks/prices.py --price smx/prices.json --json $(RESULTS)/prices-check.json
	$(BIN)/python benchmarks/fastest.py --json $(RESULTS)/fastest.json
	$(BIN)/python benchmarks/cells.py --json $(RESULTS)/cells.json
	$(BIN)/python benchmarks/tables.py

clean:  ## remove runs, caches and the virtual environment
	rm -rf .venv $(NODE_MODULES) runs build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
