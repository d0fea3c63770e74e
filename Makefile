# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
#
# The bare machine's home: ROS 2 itself from wheels, everything inside one folder of the clone.
# With a ROS 2 install this file has no part: there it is colcon build.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# A sourced shell exports ROS_DISTRO, so only the command line may choose.
ifneq ($(origin ROS_DISTRO),command line)
  override ROS_DISTRO := kilted
endif
ifeq ($(wildcard requirements-$(ROS_DISTRO).txt),)
  $(error ROS_DISTRO is '$(ROS_DISTRO)', wanted one of: $(patsubst requirements-%.txt,%,\
    $(filter-out %-bare.txt %-python.txt %-training.txt %-quantisation.txt,$(wildcard requirements-*.txt))))
endif

# A Python named by PYTHON=... has its folder, so that going back costs nothing.
VENV := .venv$(if $(filter-out kilted,$(ROS_DISTRO)),-$(ROS_DISTRO))$(if $(PYTHON),-$(notdir $(PYTHON)))
PYTHON ?= python3
# Pinned, so that a build is the same next year; TORCH='torch==...' chooses another. Which build of it
# comes is up to pip's indexes: PyPI's brings CUDA.
TORCH ?= torch==2.13.0
OUT ?= demo_output
MINUTES ?= 30

# Two builds of ROS 2 in one process do not go together: nothing of a sourced one gets through.
# In CMake's eyes a sourced prefix is also whatever has its bin/ in PATH.
export PATH := $(shell printf '%s' "$$PATH" | awk -v RS=: 'BEGIN { \
  n = split(ENVIRON["AMENT_PREFIX_PATH"] ":" ENVIRON["CMAKE_PREFIX_PATH"] ":" \
    ENVIRON["COLCON_PREFIX_PATH"], prefixes, ":"); \
  for (i = 1; i <= n; i++) if (prefixes[i] != "") sourced[prefixes[i] "/bin"] } \
  !($$0 in sourced) && $$0 !~ "^/opt/ros/" { printf "%s%s", separator, $$0; separator = ":" }')
unexport AMENT_PREFIX_PATH AMENT_CURRENT_PREFIX CMAKE_PREFIX_PATH COLCON_PREFIX_PATH \
  LD_LIBRARY_PATH PYTHONPATH PYTHONHOME PKG_CONFIG_PATH VIRTUAL_ENV \
  ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION ROS_PACKAGE_PATH ROS_DOMAIN_ID ROS_NAMESPACE \
  ROS_LOCALHOST_ONLY ROS_AUTOMATIC_DISCOVERY_RANGE ROS_STATIC_PEERS ROS_DISCOVERY_SERVER \
  ROS_SECURITY_ENABLE ROS_SECURITY_STRATEGY ROS_SECURITY_KEYSTORE ROS_DISABLE_LOANED_MESSAGES \
  RMW_IMPLEMENTATION RMW_FASTRTPS_USE_QOS_FROM_XML RMW_FASTRTPS_PUBLICATION_MODE \
  FASTRTPS_DEFAULT_PROFILES_FILE FASTDDS_DEFAULT_PROFILES_FILE FASTDDS_BUILTIN_TRANSPORTS \
  CYCLONEDDS_URI RCL_ASSERT_RMW_ID_MATCHES _ROS_WHEELS_BOOTSTRAP_COMPLETE

RUN := $(VENV)/bin/python
RUN_ROS := AMENT_PREFIX_PATH='$(CURDIR)/$(VENV)' $(RUN)
REQUIREMENTS := requirements-$(ROS_DISTRO).txt requirements-bare.txt requirements-python.txt \
  requirements.txt
INTERFACES := $(wildcard msg/*.msg srv/*.srv action/*.action)
# For the shell, whatever a person's file is called.
quoted = '$(subst ','\'',$(1))'
digest = $(firstword $(shell { $(1); } 2>/dev/null | cksum))

# Stamps: their names hold what the step depends on beyond the times of files.
MADE := $(VENV)/made-$(call digest,pwd; $(RUN) -VV || $(PYTHON) -VV)
FILLED := $(VENV)/filled-$(call digest,cat $(REQUIREMENTS); echo '$(TORCH)')
BUILT := $(VENV)/built-$(call digest,find depthvlm_ros config launch -type f ! -name '*.pyc' | sort)

.PHONY: help build demo test soak lint clean
help:  ## say what there is
	@echo 'depthvlm_ros on a machine without ROS; everything is installed into $(VENV).'
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | \
	  while IFS='|' read -r target says; do printf '  make %-6s  %s\n' "$$target" "$$says"; done
	@echo 'Variables: PYTHON=python3.12, ROS_DISTRO=jazzy, TORCH=torch==2.13.0;'
	@echo '  of demo: IMAGE=photo.jpg with FX=600 (px) or INFO=calibration.yaml, OUT=demo_output;'
	@echo '  of test: ARGS="-k camera" and any other pytest arguments.'

build: $(BUILT)  ## set up the environment, with the interfaces generated

demo: $(BUILT)  ## a camera through the node: depth, a cloud, answers, left in demo_output/
	@$(RUN_ROS) -m depthvlm_ros.nodes.demo --out $(call quoted,$(OUT)) \
	  $(if $(IMAGE),--image $(call quoted,$(IMAGE))) \
	  $(if $(FX),--fx $(call quoted,$(FX))) $(if $(INFO),--info $(call quoted,$(INFO)))

test: lint  ## lint, then every test
	@$(RUN_ROS) -m pytest $(ARGS)

soak: $(BUILT)  ## a long run (MINUTES=30): images, questions, restarts, transitions, all counted
	@$(RUN_ROS) -m depthvlm_ros.nodes.soak --minutes $(MINUTES)

lint: $(BUILT)  ## ruff
	@$(RUN) -m ruff check .

clean:  ## remove the environments and everything that was built
	rm -rf .venv .venv-* build dist install log demo_output .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# One message for everything that is missing, before anything is done.
define check_machine
@missing=; packages=; name=$(notdir $(PYTHON)); \
lacks() { missing+="  - $$1"$$'\n'; packages+=" $$2"; }; \
python() { $(PYTHON) -c "$$1" 2>/dev/null; }; \
if [ "$$(uname -sm)" != 'Linux x86_64' ]; then \
  lacks "Linux x86_64, for which alone ROS 2 has wheels: on $$(uname -sm) use a ROS 2 install"; fi; \
if ! python ''; then \
  lacks '$(PYTHON), Python 3.10 to 3.14' "$$name $$name-venv $$name-dev"; \
elif ! python 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))'; then \
  lacks "Python 3.10 to 3.14: $(PYTHON) is $$($(PYTHON) -V 2>&1); name another one with PYTHON=..."; \
else \
  python 'import ensurepip, venv' || lacks 'venv and ensurepip for $(PYTHON)' "$$name-venv"; \
  python 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' \
    || lacks 'Python.h for $(PYTHON)' "$$name-dev"; fi; \
for compiler in gcc g++; do \
  command -v $$compiler >/dev/null || lacks $$compiler build-essential; done; \
if [ -n "$$missing" ]; then \
  printf 'This machine lacks:\n%s' "$$missing"; \
  if [ -n "$${packages// }" ]; then \
    echo "Install with: sudo apt install $$(echo $$packages | tr ' ' '\n' | sort -u | paste -sd " ")"; fi; \
  exit 1; fi
endef

$(MADE):
	$(check_machine)
	@echo '[1/3] A Python environment in $(VENV)'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(FILLED): $(MADE)
	@echo '[2/3] Python packages and ROS 2 $(ROS_DISTRO) (2 to 10 minutes; about 1.7 GB on disk, some 5 more where'
	@echo '      pip finds torch with CUDA)'
	@log=$(VENV)/pip.log; set -o pipefail; \
	$(RUN) -m pip install --disable-pip-version-check --progress-bar off \
	  $(REQUIREMENTS:%=-r %) '$(TORCH)' 2>&1 | tee $$log | sed -u -n \
	  -e '/[0-9] [MG]B)$$/s/^ *\(Downloading\|Using cached\)/ /p' -e '/^Installing /s/:.*//p' || \
	{ tail -n 20 $$log; echo "pip failed; all that it said is in $$log."; exit 1; }
	@$(RUN) standalone/mend_wheels.py
	@# cv_bridge, sensor_msgs_py and tf_transformations have no wheels: stand-ins, read in place.
	@echo '$(CURDIR)/standalone' > \
	  "$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/standalone.pth"
	@rm -f $(VENV)/filled-* && touch $@

# Symbolic links, as of colcon build --symlink-install: an edited file is the one that runs.
$(BUILT): $(FILLED) $(INTERFACES) CMakeLists.txt package.xml
	$(check_machine)
	@echo '[3/3] Interfaces from msg/, srv/ and action/ (about a minute)'
	@log=$(VENV)/build.log; prefix='$(CURDIR)/$(VENV)'; cmake=$(VENV)/bin/cmake; set -o pipefail; \
	export AMENT_PREFIX_PATH="$$prefix" CMAKE_PREFIX_PATH="$$prefix"; \
	{ $$cmake -S . -B $(VENV)/build -DBUILD_TESTING=OFF -DAMENT_CMAKE_SYMLINK_INSTALL=ON \
	    -DCMAKE_INSTALL_PREFIX="$$prefix" -DPython3_EXECUTABLE="$$prefix/bin/python" && \
	  $$cmake --build $(VENV)/build --parallel && \
	  (cd $(VENV)/build && "$$prefix/bin/cmake" --install .); \
	} 2>&1 | tee $$log | sed -u -n '/Built target depthvlm_ros__/p' || \
	{ tail -n 40 $$log; echo "The build failed; all of it is in $$log."; exit 1; }
	@rm -f $(VENV)/built-* && touch $@
