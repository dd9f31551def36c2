#!/usr/bin/env bash
# Real ratings, end to end: train without and with privacy, verify both ledgers, trace one participant, report.
# Usage: scripts/demo.sh [FOLDER FOR RUNS]    (`make demo` puts `liberate` on the PATH)
set -euo pipefail

demo=${1:-runs}/demo-$(date +%Y%m%d-%H%M%S)
mkdir -p "$demo"

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*" >&2 && "$@"; }

# Train in one mode, then check what was written with the ledger's public key alone.
train_and_verify() {
    local mode=$1 key
    shift
    run liberate train --data ml-100k --set privacy.mode="$mode" "$@" --out "$demo/$mode" --json >"$demo/$mode.json"
    cat "$demo/$mode.json"
    key=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["verifier_key"])' "$demo/$mode.json")
    run liberate ledger verify "$demo/$mode" --key "$key"
}

say "1. MovieLens-100K: 943 people, 1,682 films"
run liberate data get ml-100k
run liberate data show ml-100k

say "2. A trusted server: no noise"
train_and_verify plain

say "3. A server that may lie: secure aggregation, and noise that protects the sum"
run liberate privacy plan --data ml-100k --set privacy.mode=distributed --set privacy.epsilon=8
train_and_verify distributed --set privacy.epsilon=8

say "4. What happened to the data of one participant"
run liberate trace "$demo/plain" --participant user:1

say "5. Reports, to open in a browser"
ls "$demo"/*/report.html
