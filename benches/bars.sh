#!/usr/bin/env bash
# Measures every bar about writing: the figure, the floor or the rival beside it, pass or short.
#
#   benches/bars.sh [--dir D] [--rounds N] [--quick] [--record] [--keep-raw DIR]
#
# --dir      where to measure (default ./highwater-bars): a directory on the disk in question
# --rounds   how often each run is made, in turns (default 5)
# --quick    an eighth of the bytes and of the time: to see that it works, not to be believed
# --record   also writes docs/results.md
# --keep-raw keeps the JSON of every run in that directory
#
# Needs cargo and python3. HIGHWATER and COMPARE name binaries that are already built. Ends with 1 if
# a bar could not be measured; one that is short is printed, and no failure.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=./highwater-bars rounds=5 quick=0 record=0 raw=
while [ "$#" -gt 0 ]; do
  case "$1" in
    --dir) dir=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --keep-raw) raw=$2; shift 2 ;;
    --quick) quick=1; shift ;;
    --record) record=1; shift ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "bars.sh: what is $1? See --help" >&2; exit 2 ;;
  esac
done
command -v python3 >/dev/null || { echo "bars.sh: python3 is needed" >&2; exit 2; }

highwater=${HIGHWATER:-} compare=${COMPARE:-}
target=${CARGO_TARGET_DIR:-target}
if [ -z "$highwater" ]; then
  cargo build --release --quiet -p highwater-cli
  highwater=$target/release/highwater
fi
if [ -z "$compare" ]; then
  cargo build --release --quiet -p highwater-benches --features compare
  compare=$target/release/compare
fi

stream=4GiB other=2GiB seconds=10 appends=5000
[ "$quick" = 1 ] && stream=512MiB other=256MiB seconds=2 appends=600
made_dir=0 made_raw=0
[ -d "$dir" ] || made_dir=1
mkdir -p "$dir"
[ -n "$raw" ] || { raw=$(mktemp -d); made_raw=1; }
mkdir -p "$raw"
cleanup() {
  rm -rf "$dir/run"
  # Only if nothing is in it.
  [ "$made_dir" = 0 ] || rmdir "$dir" 2>/dev/null || true
  [ "$made_raw" = 0 ] || rm -rf "$raw"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A run's name, and its flags behind `highwater bench append --dir D`.
# Enough in flight for 8 writes of 256 KiB, and as much again that gathers.
closed="--rate max --flush none --ack leader"
steady="--retention-bytes 256MiB --warmup 2"
durable="--ack leader-flushed --prepare at-open --warmup 1 --duration $seconds"
runs=(
  "stream-steady|--record-bytes 1KiB --batch-records 64 --in-flight 64 --total-bytes $stream $closed $steady"
  "stream-cold|--record-bytes 1KiB --batch-records 64 --in-flight 64 --total-bytes $stream $closed"
  "kib16-steady|--record-bytes 1KiB --batch-records 16 --in-flight 256 --total-bytes $other $closed $steady"
  "kib16-cold|--record-bytes 1KiB --batch-records 16 --in-flight 256 --total-bytes $other $closed"
  "small-steady|--record-bytes 100 --batch-records 100 --in-flight 512 --total-bytes $other $closed $steady"
  "small-cold|--record-bytes 100 --batch-records 100 --in-flight 512 --total-bytes $other $closed"
  "durable-queued|--record-bytes 1KiB --batch-records 1 --in-flight 1 $durable"
  "durable-local|--record-bytes 1KiB --batch-records 1 --in-flight 1 --local $durable"
  "group|--record-bytes 100 --batch-records 1 --producers 2 --in-flight 64 $durable"
  "disk|--record-bytes 100 --batch-records 1 --in-flight 1 $durable"
)

for round in $(seq "$rounds"); do
  for run in "${runs[@]}"; do
    name=${run%%|*} flags=${run#*|}
    echo "round $round/$rounds: $name" >&2
    echo "$flags" >"$raw/$name.flags"
    # shellcheck disable=SC2086 # the flags are words
    "$highwater" bench append --dir "$dir/run" $flags --format json >"$raw/$name.$round.json" ||
      { echo "bars.sh: $name failed" >&2; rm -f "$raw/$name.$round.json"; }
    rm -rf "$dir/run"
    sync -f "$dir"
  done
done
beside="--rounds $rounds --total-bytes $other --durable-appends $appends"
echo "$beside" >"$raw/compare.flags"
# A failed engine is in the result.
# shellcheck disable=SC2086
"$compare" --dir "$dir/run" $beside --format json >"$raw/compare.json" ||
  echo "bars.sh: some runs of compare failed" >&2

[ "$record" = 0 ] || python3 benches/bars.py "$raw" --markdown >docs/results.md
python3 benches/bars.py "$raw"
