# Everything needs only python3, a C compiler and make; each target keeps to a virtual environment of its own.
PYTHON ?= python3

.PHONY: demo test check bench clean

demo: .venv-demo/done
	.venv-demo/bin/grpclb demo $(ARGS)

test: .venv-test/done
	.venv-test/bin/pytest $(ARGS)

check:
	bash .ci/run

bench: .venv-test/done
	.venv-test/bin/pytest bench $(ARGS)

SOURCES := pyproject.toml setup.py $(shell find grpclb_core ext -name '*.py' -o -name '*.py[xi]' -o -name '*.pxd' -o -name '*.h')

.venv-%/done: $(SOURCES)
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet ".[$*]"
	touch $@

clean:
	rm -rf .venv-* build dist *.egg-info
	find grpclb_core -name '*.so' -delete
