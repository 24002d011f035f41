#!/bin/sh
# Turns a fresh Debian or Ubuntu machine into one with a working `.venv`: system packages, environment, dependencies.
# Safe to repeat. The Makefile calls it when `.venv/.ready` is missing or older than pyproject.toml.
set -eu
venv=${1:-.venv}

say() { printf '%s\n' "setup: $*" >&2; }

find_python() {
    for name in ${PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    return 1
}

# ffcv is published as source only: building it needs a C++ compiler and the headers of Python, OpenCV and libjpeg-turbo.
missing_packages() {
    command -v c++ >/dev/null || echo g++
    command -v pkg-config >/dev/null || echo pkg-config
    pkg-config --exists opencv4 2>/dev/null || echo libopencv-dev
    pkg-config --exists libturbojpeg 2>/dev/null || echo libturbojpeg0-dev
    if python=$(find_python); then
        "$python" -c 'import os, sysconfig, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || echo python3-dev
        "$python" -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
    else
        echo python3 python3-dev python3-venv
    fi
}

wanted=$(missing_packages | tr '\n' ' ')
if [ -n "$wanted" ]; then
    if command -v apt-get >/dev/null; then
        as_root=
        if [ "$(id -u)" -ne 0 ]; then
            command -v sudo >/dev/null || { say "not root and no sudo; ask for these packages to be installed: $wanted"; exit 1; }
            as_root=sudo
        fi
        say "installing system packages: $wanted"
        $as_root apt-get update -qq
        # shellcheck disable=SC2086  # a list of package names
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null
    else
        say "this system has no apt-get; install a C++ compiler, pkg-config, the headers of Python 3.11 to 3.13,"
        say "OpenCV 4 and libjpeg-turbo yourself, e.g. with conda:"
        say "  conda create -n fastcifar -c conda-forge python=3.12 cxx-compiler pkg-config libopencv libjpeg-turbo make"
        say "  conda activate fastcifar"
        say "and run the same command again."
        exit 1
    fi
fi

python=$(find_python) || { say "Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3.12"; exit 1; }
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
say "installing the dependencies into $venv (torch is large: a minute or more)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24" "setuptools>=77" wheel
# torch first: it pins the CUDA libraries exactly, and resolving everything together may choose an older torch
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "torch>=2.11,<3" "torchvision>=0.26,<1"
PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[dev]"
touch "$venv/.ready"
say "done"
