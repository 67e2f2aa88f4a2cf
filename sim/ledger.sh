#!/usr/bin/env bash
# Runs the simulator and writes what it proved into docs/proof-ledger.md.
#
#   ledger.sh ARGUMENTS...                      run `highwater-sim ARGUMENTS...`, append a row
#   ledger.sh --row KIND COUNT UNIT FAILED HOURS [NOTE]   append a row for another kind of run
#   ledger.sh --totals                          print the sums
#
# A row says when, at which commit, what was run, how much, how much of it failed, and how many
# hours of processor time it took. Ends as the run ended.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ledger=$root/docs/proof-ledger.md

totals() {
    awk -F'|' '
        /^\| [0-9][0-9][0-9][0-9]-/ {
            for (i = 2; i <= 8; i++) gsub(/^ +| +$/, "", $i)
            key = $4 " (" $6 ")"
            count[key] += $5; failed[key] += $7; hours[key] += $8; runs[key]++
        }
        END {
            for (key in count)
                printf "%-40s %4d runs %12d, %d failed, %.2f core-hours\n",
                    key, runs[key], count[key], failed[key], hours[key]
        }' "$ledger" | sort
}

# Appends a row: kind, count, unit, failed, hours, note.
row() {
    local commit
    commit=$(git -C "$root" rev-parse --short HEAD)
    # What is not committed is not what the row names.
    git -C "$root" diff --quiet HEAD -- '*.rs' '*.toml' || commit+="+"
    echo "| $(date -u +%F) | $commit | $1 | $2 | $3 | $4 | $5 | ${6:-} |" >> "$ledger"
}

case ${1:-} in
    '' | -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
    --totals) totals; exit 0 ;;
    --row) shift; row "$@"; totals; exit 0 ;;
esac

(cd "$root" && cargo build --release --quiet -p highwater-sim)
binary=${CARGO_TARGET_DIR:-$root/target}/release/highwater-sim
log=$(mktemp)
used=$(mktemp)
trap 'rm -f "$log" "$used"' EXIT
status=0
TIMEFORMAT='%U %S'
{ time "$binary" "$@" > "$log"; } 2> "$used" || status=$?
cat "$log"
hours=$(tail -n 1 "$used" | awk '{ printf "%.4f", ($1 + $2) / 3600 }')
summary=$(grep -E '[0-9]+ (cases )?failed, ' "$log" | tail -n 1)
failed=$(grep -oE '[0-9]+ (cases )?failed' <<< "$summary" | grep -oE '^[0-9]+')
case $1 in
    storage) unit=seeds ;;
    crash-states | nth-failures) unit=states ;;
    bit-flips) unit=flips ;;
    corruptions) unit=damages ;;
    *) echo "no row for $1" >&2; exit "$status" ;;
esac
count=$(grep -oE "[0-9]+ $unit" <<< "$summary" | head -n 1 | grep -oE '^[0-9]+')
note=${*:2}
row "$1" "$count" "$unit" "$failed" "$hours" "$note"
totals
exit "$status"
