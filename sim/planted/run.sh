#!/usr/bin/env bash
# Plants each bug of this folder in a copy of the sources and expects the simulator to catch it.
#
#   run.sh [--check] [--only NN] [--seeds N] [--record]
#
#   --check    only verify that every patch still applies
#   --only NN  only the patch with this number
#   --seeds N  seeds for each bug, at most (default 2000)
#   --record   write what was measured into docs/planted-bugs.md
#
# The head of a patch says what it is: `bug:`, `crash:`, `caught-by:` (a command of highwater-sim, or
# `test`: the engine's tests), and `args:`, if that command needs some. The unpatched sources go
# first, and must pass. Works in ${CARGO_TARGET_DIR:-target}/planted and leaves the checkout alone
# (but for --record). Ends with 1 if a patch does not apply or build, or a bug is not caught.
# docs/planted-bugs.md has the results.
set -euo pipefail

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

check=false
only=''
seeds=2000
record=false
while (($# > 0)); do
    case $1 in
        --check) check=true ;;
        --only) only=$(printf '%02d' "$((10#${2:?--only needs a number}))"); shift ;;
        --seeds) seeds=${2:?--seeds needs a number}; shift ;;
        --record) record=true ;;
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
        storage) [[ $2 == *--seeds* ]] || extra+=(--seeds "$seeds") ;;
        test) run_tests "${extra[@]}"; return ;;
        crash-states | corruptions | bit-flips | nth-failures) ;;
        *) echo "unknown command $command" > "$work/run.log"; return 0 ;;
    esac
    timeout 600 "$binary" "$command" "${extra[@]}" > "$work/run.log" 2>&1
}

# Runs tests of the engine as `simulate` runs a command; the first that fails is told likewise.
run_tests() {
    (cd "$tree" && timeout 600 cargo test --quiet --package highwater --test "$@") \
        > "$work/test.log" 2>&1 && { tail -n 2 "$work/test.log" > "$work/run.log"; return 0; }
    sed -n 's/^\([a-z_:]*\) --- FAILED$/FAILED \1: test: it fails/p' "$work/test.log" \
        > "$work/run.log"
    return 1
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

# Prints the first failure of the last run as `invariant|where`.
#
# A failure is told as FAILED <where>: <invariant>: <message>; where can hold any punctuation.
verdict() {
    local line invariant where
    line=$(grep --max-count=1 '^FAILED ' "$work/run.log") || return 1
    invariant=$(grep --only-matching --extended-regexp \
        ': ([A-Z][0-9]+[a-z]?|PANIC|[a-z]+( [a-z]+)*): ' <<< "$line" | head -n 1)
    invariant=${invariant#: }
    [[ -n $invariant ]] || return 1
    where=${line#FAILED }
    where=${where%%"$invariant"*}
    # Of a crash state only the boundary; the log has the rest.
    where=${where%%: }
    echo "${invariant%: }|${where%%, *}"
}

echo "building the unpatched simulator"
build || { cat "$work/build.log"; exit 1; }
commands=$(while IFS= read -r patch; do
    echo "$(field "$patch" caught-by) $(field "$patch" args)"
done <<< "$list" | sort -u)
while read -r command extra; do
    echo "the unpatched simulator: $command $extra"
    status=0
    simulate "$command" "$extra" || status=$?
    # Cases that so many seeds never met (status 1, no failure) say nothing against the engine.
    if ((status > 1)) || grep --quiet '^FAILED' "$work/run.log"; then
        grep --max-count=1 '^FAILED' "$work/run.log" | cut -c 1-400 || true
        tail -n 1 "$work/run.log" | cut -c 1-400
        echo "the unpatched simulator fails: nothing is proven by what follows" >&2
        exit 1
    fi
    tail -n 1 "$work/run.log" | cut -c 1-400
done <<< "$commands"

row NN name caught-by invariant where seconds
missed=0
results=$work/results
: > "$results"

# Prints a result and keeps it for docs/planted-bugs.md.
result() {
    row "$@"
    (IFS='|' && echo "$*") >> "$results"
}

plant() {
    local patch=$1 name number command extra began seconds status=0 found
    name=$(basename "$patch" .patch)
    number=${name%%-*}
    name=${name#*-}
    command=$(field "$patch" caught-by)
    extra=$(field "$patch" args)
    if ! apply < "$patch" > "$work/apply.log" 2>&1; then
        result "$number" "$name" "$command $extra" 'DOES NOT APPLY' '' ''
        return 1
    fi
    if ! build; then
        result "$number" "$name" "$command $extra" 'DOES NOT BUILD' '' ''
        grep --max-count=3 --after-context=8 '^error' "$work/build.log" || true
        return 1
    fi
    began=$(date +%s.%N)
    simulate "$command" "$extra" || status=$?
    seconds=$(awk -v began="$began" -v now="$(date +%s.%N)" 'BEGIN { printf "%.1f", now - began }')
    if ((status == 1)) && found=$(verdict); then
        result "$number" "$name" "$command $extra" "${found%%|*}" "${found#*|}" "$seconds"
    else
        result "$number" "$name" "$command $extra" 'NOT CAUGHT' "status $status" "$seconds"
        return 1
    fi
}

while IFS= read -r patch; do
    plant "$patch" || missed=$((missed + 1))
    # Also what of it was applied if it was not applied whole.
    revert "$patch"
done <<< "$list"
echo "$(wc -l <<< "$list") planted bugs, $missed not caught"

# Replaces the table of the document by the results of this run, with the words of the patches.
write_down() {
    local document=$root/docs/planted-bugs.md number name command invariant where seconds patch
    {
        sed '/^<!-- measured -->$/q' "$document"
        echo
        echo "| bug | what it would lose | command | caught as | first at |"
        echo "|---|---|---|---|---|"
        while IFS='|' read -r number name command invariant where seconds; do
            patch=$here/$number-$name.patch
            echo "| $number ${name//-/ }: $(words "$patch" bug) | $(words "$patch" crash) |" \
                "\`${command% }\` | $invariant | $where |"
        done < "$results"
        echo
        sed -n '/^<!-- end of measured -->$/,$p' "$document"
    } > "$work/document"
    cp "$work/document" "$document"
}

# Prints a field that may go on over indented lines.
words() {
    awk -v field="$2:" '
        /^--- / { exit }
        /^[a-z-]+:/ { inside = index($0, field) == 1; sub(/^[a-z-]+: */, "") }
        inside { sub(/^ +/, ""); text = text (text == "" ? "" : " ") $0 }
        END { gsub(/\|/, "\\|", text); print text }
    ' "$1"
}

if "$record" && [[ -z $only ]]; then
    write_down
    echo "written into docs/planted-bugs.md"
fi
((missed == 0))
