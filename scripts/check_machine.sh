#!/bin/sh
# Prints the path of a Python that can build the environment. What is missing is installed where apt
# and root are at hand; elsewhere it is named in one line on stderr, with the command that helps.
set -eu

MIN_PYTHON=11 # minor version: 3.11
MIN_JAVA=17

find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        path=$(command -v "$name") || continue
        if "$path" -c "import sys; sys.exit(sys.version_info < (3, $MIN_PYTHON))" 2>/dev/null; then
            echo "$path"
            return
        fi
    done
}

# JAVA_HOME wins over PATH, as it does for Spark. Prints the major version, nothing without Java.
java_version() {
    java=java
    if [ -n "${JAVA_HOME:-}" ]; then java=$JAVA_HOME/bin/java; fi
    "$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1
}

has_compiler() {
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null
}

# Sets `missing` (for a person) and `packages` (for apt).
look() {
    missing='' packages=''
    python=$(find_python)
    if [ -z "$python" ]; then
        need "Python 3.$MIN_PYTHON+" "python3 python3-venv python3-dev"
    else
        "$python" -c 'import ensurepip, venv' 2>/dev/null || need "Python's venv" python3-venv
        "$python" -c 'import os, sysconfig as s, sys
sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' ||
            need "Python's headers" python3-dev
    fi
    version=$(java_version)
    if [ "${version:-0}" -lt $MIN_JAVA ]; then
        # No package repairs a wrong JAVA_HOME: installing one would only surprise the machine's owner.
        if [ -n "${JAVA_HOME:-}" ]; then
            missing="Java $MIN_JAVA+ in JAVA_HOME=$JAVA_HOME (found: ${version:-none})"
            fail "point JAVA_HOME at Java $MIN_JAVA or newer, or unset it"
        fi
        need "Java $MIN_JAVA+ (found: ${version:-none})" "$(java_package)"
    fi
    has_compiler || need "a C++ compiler" g++
}

need() {
    missing="$missing${missing:+, }$1"
    packages="$packages${packages:+ }$2"
}

# Debian 13 has no openjdk-17; its default is newer, which serves as well.
java_package() {
    if apt-cache show openjdk-17-jre-headless >/dev/null 2>&1; then
        echo openjdk-17-jre-headless
    else
        echo default-jre-headless
    fi
}

fail() {
    echo "error: missing $missing; $1" >&2
    exit 1
}

look
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null ||
        fail "install them with your package manager (dnf: python3.11-devel java-17-openjdk-headless gcc-c++; brew: python@3.12 openjdk@17)"
    if [ "$(id -u)" -ne 0 ]; then
        fail "install with: sudo apt-get update && sudo apt-get install -y --no-install-recommends $packages"
    fi
    echo "installing $missing ..." >&2
    apt-get update -qq >&2
    look # package names are known only after the update
    # shellcheck disable=SC2086  # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >&2
    installed=$packages
    look
    [ -z "$missing" ] || fail "still not found after installing $installed"
fi
echo "$python"
