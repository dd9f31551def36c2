#!/usr/bin/env bash
# Install the wheel alone into a fresh environment outside the repository, and let it train, recommend, trace and report.
# Usage: scripts/try_wheel.sh PYTHON WHEEL
set -euo pipefail

python=$1 wheel=$(realpath "$2")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"$python" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet "$wheel"
export PATH="$place/venv/bin:$PATH"
cd "$place"

if python -c "import matplotlib" 2>/dev/null; then
    echo "the core brings matplotlib, which only studies need" >&2
    exit 1
fi

python - <<'PROGRAM'
import random

random.seed(1)
with open("ratings.csv", "w") as file:
    print("user,item,rating", file=file)
    for user in range(60):
        for item in random.sample(range(40), 15):
            print(f"u{user},i{item},{random.randint(1, 5)}", file=file)
PROGRAM

liberate train --data ratings.csv --set privacy.mode=plain --out run --json >run.json
key=$(python -c 'import json; print(json.load(open("run.json"))["verifier_key"])')
liberate recommend run --participant user:u1
liberate trace run --participant user:u1 >/dev/null
liberate ledger verify run --key "$key" >/dev/null
test -s run/report.html

echo "$("$python" --version): $(basename "$wheel") trains, recommends, traces, verifies and reports"
