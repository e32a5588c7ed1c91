#!/bin/sh
# Print the folder with this machine's llama-cpp-python wheel; build the wheel if there is none yet.
#
#   .ci/llama_wheel.sh PYTHON
#
# llama-cpp-python is published as source only, and pip's own cache of built wheels knows neither the processor nor
# CMAKE_ARGS. llama.cpp is built for the processor it is built on (it is much faster that way), so a home folder that is
# copied or shared would end in "Illegal instruction" elsewhere. Hence a cache of our own, outside the tree so that
# every checkout shares it, with a folder for each version, processor and set of options.
set -eu

python=$1
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^llama[-_]cpp[-_]python==//p' "$here/constraints.txt")
cache=${AIQUEUE_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/aiqueue/wheels}

# What decides whether a build runs here, and whether it is the one asked for: CMAKE_ARGS are the caller's, for example
# -DGGML_CUDA=ON. Python's version does not matter, the bindings load the library by ctypes.
machine=$({
    uname -sm
    grep -m1 -E '^(flags|Features)' /proc/cpuinfo 2>/dev/null || sysctl -n machdep.cpu.brand_string 2>/dev/null || true
    printf '%s\n' "${CMAKE_ARGS:-}"
    grep -v "^#" "$here/llama_without_common.cmake"
} | cksum | cut -d' ' -f1)
folder=$cache/llama-cpp-python-$version-$machine

has_wheel() { ls "$folder"/llama_cpp_python-"$version"-*.whl >/dev/null 2>&1; }

if ! has_wheel; then
    if ! command -v "${CXX:-c++}" >/dev/null && ! command -v g++ >/dev/null && ! command -v clang++ >/dev/null; then
        echo "llama-cpp-python is built from source and needs a C++ compiler; there is none." >&2
        echo "Debian, Ubuntu: apt install g++   Fedora: dnf install gcc-c++   macOS: xcode-select --install" >&2
        exit 1
    fi
    echo "Building llama-cpp-python $version: once on this machine, about 2 minutes on 2 cores." >&2
    mkdir -p "$folder"
    building=$(mktemp -d "$folder/.building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
    # No images (LLAVA), nothing that only the command line tools need, several files per compiler call; batches of
    # more than the default 8 files do not compile. The caller's options come last, so they win.
    faster="-DLLAVA_BUILD=OFF -DCMAKE_UNITY_BUILD=ON"
    faster="$faster '-DCMAKE_PROJECT_llama.cpp_INCLUDE=$here/llama_without_common.cmake'"
    CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$cores} CMAKE_ARGS="$faster ${CMAKE_ARGS:-}" \
        "$python" -m pip wheel --quiet --no-deps --no-cache-dir --wheel-dir "$building" \
        "llama-cpp-python==$version" >&2
    mv "$building"/*.whl "$folder/" # only a finished wheel is ever seen by another build
fi
echo "$folder"
