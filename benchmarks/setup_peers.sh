#!/usr/bin/env bash
# Installs the matchers of others that `coam bench` measures beside ours into .venv-peers (about
# 6 GB); deleting that folder undoes it. PYTHON=/path/to/python3 chooses another interpreter.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv-peers

"${PYTHON:-python3}" -m venv "$venv"
touch "$venv/COLCON_IGNORE"
"$venv/bin/python" -m pip install --no-compile -r "$root/benchmarks/requirements-peers.txt"
echo 'Ready: coam bench pose DIR --matcher all'
