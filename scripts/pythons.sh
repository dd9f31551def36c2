#!/usr/bin/env bash
# The interpreters that this machine has for the versions we support, one path a line: on the PATH, and in pyenv's folders.
set -euo pipefail

for version in 3.11 3.12 3.13; do
    for python in "$(command -v "python$version" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
        # pyenv's shims are on the PATH for every version, and fail for those that are not chosen
        if [ -x "$python" ] && "$python" -c "import ensurepip, sys; sys.exit(sys.version_info[:2] != (${version/./, }))" 2>/dev/null; then
            echo "$python"
            break
        fi
    done
done
