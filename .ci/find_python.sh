#!/bin/sh
# Print a Python that this project works with, or say on stderr that there is none.
#
#   .ci/find_python.sh             the first of 3.11, the default python3, 3.12, 3.13
#   .ci/find_python.sh 3.12        that version, on the path or among pyenv's
#   .ci/find_python.sh /some/path  that one
set -u

# Also in pyproject.toml (requires-python): a test compares them.
oldest=3.11
too_new=3.14

works() {
    "$1" - "$oldest" "$too_new" <<'EOF' >/dev/null 2>&1
import ensurepip, sys, venv
oldest, too_new = (tuple(map(int, given.split("."))) for given in sys.argv[1:])
sys.exit(not oldest <= sys.version_info[:2] < too_new)
EOF
}

candidates() {
    case "${1:-}" in
        3.[0-9] | 3.[0-9][0-9]) echo "python$1" && ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python 2>/dev/null ;;
        "") printf '%s\n' python3.11 python3 python3.12 python3.13 ;;
        *) echo "$1" ;;
    esac
}

for python in $(candidates "${1:-}"); do
    if works "$python"; then
        command -v "$python"
        exit 0
    fi
done

found=""
for python in "${1:-python3}"; do
    found=$("$python" --version 2>/dev/null) && found=", and $python is $found"
done
echo "This needs Python $oldest or newer, below $too_new, with its venv module; found none${1:+ as $1}$found." >&2
echo "Debian, Ubuntu: apt install python3.11-venv   or name one: make PYTHON=/path/to/python3.11 ..." >&2
exit 1
