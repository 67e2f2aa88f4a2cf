#!/usr/bin/env bash
# Measures every bar of one node: the figure, the floor or the rival beside it, pass or short.
#
#   benches/bars.sh [--dir D] [--rounds N] [--quick] [--record] [--keep-raw DIR]
#
# --dir      where to measure (default ./highwater-bars): a directory on the disk in question, with
#            16 GiB to spare (2 GiB with --quick)
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

stream=4GiB other=2GiB seconds=10 appends=5000 long=20GiB opened=10 sealed=4GiB
if [ "$quick" = 1 ]; then
  stream=512MiB other=256MiB seconds=2 appends=600 long=2560MiB opened=1 sealed=1GiB
fi
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
wide="--rate max --record-bytes 100 --batch-records 1 --producers 2 --in-flight 64 --ack leader-flushed --warmup 1 --duration $seconds"
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
  "wide-one|$wide --logs 1 --shards 2 --prepare at-open"
  "wide|$wide --logs 500 --shards 2"
  "wide-shared|$wide --logs 500 --shards 2 --shared-flush --prepare at-open --segment-bytes 1MiB"
)

bench() { # NAME FILE VERB [FLAG ...]
  local name=$1 file=$2 verb=$3
  shift 3
  echo "$verb $*" >"$raw/$name.flags"
  "$highwater" bench "$verb" --dir "$dir/run" "$@" --format json >"$raw/$file.json" ||
    { echo "bars.sh: $name failed" >&2; rm -f "$raw/$file.json"; }
}

# An appender that is killed once its log holds so many GiB.
kill_appender() { # GIB
  local appender bytes=0 limit=$(($1 << 30))
  # shellcheck disable=SC2086
  "$highwater" bench append --dir "$dir/run" --keep --record-bytes 1KiB --batch-records 64 \
    --in-flight 64 --total-bytes $(($1 * 2))GiB $closed --format json >/dev/null 2>&1 &
  appender=$!
  while [ "$bytes" -lt "$limit" ] && kill -0 "$appender" 2>/dev/null; do
    sleep 0.05
    bytes=$(du --summarize --block-size=1 "$dir/run" 2>/dev/null | cut -f1)
    bytes=${bytes:-0}
  done
  kill -9 "$appender"
  wait "$appender" 2>/dev/null || true
}

for round in $(seq "$rounds"); do
  for run in "${runs[@]}"; do
    name=${run%%|*} flags=${run#*|}
    echo "round $round/$rounds: $name" >&2
    # shellcheck disable=SC2086 # the flags are words
    bench "$name" "$name.$round" append $flags
    rm -rf "$dir/run"
    sync -f "$dir"
  done
  echo "round $round/$rounds: open, after a kill at $opened GiB" >&2
  kill_appender "$opened"
  bench open "open.$round" open
  rm -rf "$dir/run"
  sync -f "$dir"
done
echo "follow" >&2
bench follow follow.1 follow --pairs "$rounds"
rm -rf "$dir/run"
echo "read" >&2
# shellcheck disable=SC2086
"$highwater" bench append --dir "$dir/run" --keep --record-bytes 1KiB --batch-records 16 \
  --in-flight 256 --total-bytes "$sealed" $closed --format json >/dev/null
sync -f "$dir"
for round in $(seq "$rounds"); do bench read "read.$round" read; done
rm -rf "$dir/run"
echo "memory over $long" >&2
# shellcheck disable=SC2086
bench memory memory.1 append --record-bytes 1KiB --batch-records 64 --in-flight 64 \
  --total-bytes "$long" --retention-bytes 2GiB $closed
rm -rf "$dir/run"
beside="--rounds $rounds --total-bytes $other --durable-appends $appends"
echo "$beside" >"$raw/compare.flags"
# A failed engine is in the result.
# shellcheck disable=SC2086
"$compare" --dir "$dir/run" $beside --format json >"$raw/compare.json" ||
  echo "bars.sh: some runs of compare failed" >&2

[ "$record" = 0 ] || python3 benches/bars.py "$raw" --markdown >docs/results.md
python3 benches/bars.py "$raw"
