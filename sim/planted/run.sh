#!/usr/bin/env bash
# Plants each bug of this folder in a copy of the sources and expects the simulator to catch it.
#
#   run.sh [--check] [--only NN] [--seeds N]
#
#   --check    only verify that every patch still applies
#   --only NN  only the patch with this number
#   --seeds N  seeds for each bug, at most (default 2000)
#
# The head of a patch says what it is: `bug:`, `crash:`, `caught-by:` (a command of highwater-sim),
# and `args:`, if that command needs some. The unpatched sources go first, and must pass. Works in
# ${CARGO_TARGET_DIR:-target}/planted and leaves the checkout alone. Ends with 1 if a patch does not
# apply or build, or a bug is not caught. docs/planted-bugs.md has the results.
set -euo pipefail

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

check=false
only=''
seeds=2000
while (($# > 0)); do
    case $1 in
        --check) check=true ;;
        --only) only=$(printf '%02d' "$((10#${2:?--only needs a number}))"); shift ;;
        --seeds) seeds=${2:?--seeds needs a number}; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/planted
mkdir -p "$work"
work=$(cd "$work" && pwd)
pristine=$work/pristine
tree=$work/tree
export CARGO_TARGET_DIR=$work/build
# The same optimisation and checks as any release build, only faster to build again and again.
export CARGO_PROFILE_RELEASE_INCREMENTAL=true CARGO_PROFILE_RELEASE_DEBUG=0
binary=$CARGO_TARGET_DIR/release/highwater-sim

copy_sources() {
    rm -rf "$pristine" "$tree"
    mkdir -p "$pristine"
    # A file that was removed but not yet committed is listed all the same.
    (cd "$root" && git ls-files -z --cached --others --exclude-standard \
        | while IFS= read -r -d '' file; do [[ ! -f $file ]] || printf '%s\0' "$file"; done \
        | tar --null --files-from=- --create --file=-) | tar --extract --directory "$pristine"
    # Without the old times: cargo must not take what an earlier run built for up to date.
    cp -r "$pristine" "$tree"
}

patches() {
    local patch found=false number=${only:-[0-9][0-9]}
    # shellcheck disable=SC2231 # the number is a pattern
    for patch in "$here"/$number-*.patch; do
        [[ -f $patch ]] || continue
        found=true
        printf '%s\n' "$patch"
    done
    "$found" || { echo "no such patch in $here" >&2; return 1; }
}

# Prints the value of a field in a patch's head.
field() {
    sed -n -e '/^--- /q' -e "s/^$2: *//p" "$1" | head -n 1
}

apply() {
    (cd "$tree" && patch -p1 --forward --batch --no-backup-if-mismatch --reject-file=- "$@")
}

# Puts back what a patch changed.
revert() {
    local file
    sed -n 's|^+++ b/||p' "$1" | while IFS= read -r file; do
        cp "$pristine/$file" "$tree/$file"
    done
}

build() {
    (cd "$tree" && cargo build --quiet --release --package highwater-sim) > "$work/build.log" 2>&1
}

# Runs the command a head asks for into $work/run.log; returns its status.
simulate() {
    local command=$1 extra
    read -ra extra <<< "$2"
    case $command in
        storage) extra+=(--seeds "$seeds") ;;
        crash-states) ;;
        *) echo "unknown command $command" > "$work/run.log"; return 0 ;;
    esac
    timeout 1800 "$binary" "$command" "${extra[@]}" > "$work/run.log" 2>&1
}

row() {
    printf '%-2s  %-36s  %-22s  %-18s  %-24s  %7s\n' "$@"
}

copy_sources
list=$(patches)
if "$check"; then
    failed=0
    while IFS= read -r patch; do
        if ! apply --dry-run < "$patch" > "$work/apply.log" 2>&1; then
            echo "does not apply: $(basename "$patch")"
            cat "$work/apply.log"
            failed=$((failed + 1))
        fi
    done <<< "$list"
    echo "$(wc -l <<< "$list") patches, $failed do not apply"
    ((failed == 0))
    exit
fi

echo "building the unpatched simulator"
build || { cat "$work/build.log"; exit 1; }
commands=$(while IFS= read -r patch; do
    echo "$(field "$patch" caught-by) $(field "$patch" args)"
done <<< "$list" | sort -u)
while read -r command extra; do
    echo "the unpatched simulator: $command $extra"
    if ! simulate "$command" "$extra"; then
        grep --max-count=1 '^FAILED' "$work/run.log" | cut -c 1-400 || true
        tail -n 1 "$work/run.log" | cut -c 1-400
        echo "the unpatched simulator fails: nothing is proven by what follows" >&2
        exit 1
    fi
done <<< "$commands"

row NN name caught-by invariant where seconds
missed=0
while IFS= read -r patch; do
    name=$(basename "$patch" .patch)
    number=${name%%-*}
    command=$(field "$patch" caught-by)
    extra=$(field "$patch" args)
    if ! apply < "$patch" > "$work/apply.log" 2>&1; then
        row "$number" "${name#*-}" "$command $extra" 'DOES NOT APPLY' '' ''
        missed=$((missed + 1))
        # A part of it may have been applied.
        revert "$patch"
        continue
    fi
    if ! build; then
        row "$number" "${name#*-}" "$command $extra" 'DOES NOT BUILD' '' ''
        grep --max-count=3 --after-context=8 '^error' "$work/build.log" || true
        missed=$((missed + 1))
        revert "$patch"
        continue
    fi
    began=$(date +%s.%N)
    status=0
    simulate "$command" "$extra" || status=$?
    seconds=$(awk -v began="$began" -v now="$(date +%s.%N)" 'BEGIN { printf "%.1f", now - began }')
    verdict=$(grep --max-count=1 '^FAILED' "$work/run.log" || true)
    # FAILED <where>: <invariant>: <message>
    if ((status != 0)) && [[ $verdict =~ ^FAILED\ ([^:]*):\ ([^:]*): ]]; then
        row "$number" "${name#*-}" "$command $extra" "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}" \
            "$seconds"
    else
        row "$number" "${name#*-}" "$command $extra" 'NOT CAUGHT' "status $status" "$seconds"
        missed=$((missed + 1))
    fi
    revert "$patch"
done <<< "$list"
echo "$(wc -l <<< "$list") planted bugs, $missed not caught"
((missed == 0))
