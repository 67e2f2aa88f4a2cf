#!/usr/bin/env python3
"""Turns what bars.sh measured into the table of the bars.

    bars.py RAW [--markdown]      the table, for a terminal or as the results page
    bars.py --self-test           checks the arithmetic on made-up runs
"""

import datetime
import glob
import json
import os
import statistics
import subprocess
import sys


class Spread:
    """The median of several runs, and the smallest and the largest."""

    def __init__(self, figures):
        self.n = len(figures)
        self.median = statistics.median(figures)
        self.low, self.high = min(figures), max(figures)

    def text(self, digits):
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def spread(runs, figure):
    """Returns the spread of a figure over the runs that have it, or None."""
    found = [value for value in map(figure, runs) if value is not None]
    return Spread(found) if found else None


class Row:
    """One bar: what was measured, what stands beside it, what it should be."""

    def __init__(self, subject, run, measured, digits, unit, bar, beside=""):
        self.subject, self.run, self.beside = subject, run, beside
        self.measured = f"{measured.text(digits)} {unit}".strip() if measured else "-"
        self.bar, self.verdict = "", "not measured"
        if measured is None:
            return
        if bar is None:
            self.verdict = "beside"
            return
        sign, limit = bar
        met = measured.median >= limit if sign == ">=" else measured.median <= limit
        self.bar = f"{sign} {limit:g} {unit}".strip()
        self.verdict = "pass" if met else "SHORT"


class Raw:
    """The JSON of all runs."""

    def __init__(self, directory):
        self.bench, self.flags = {}, {}
        for path in sorted(glob.glob(os.path.join(directory, "*.flags"))):
            name = os.path.basename(path)[: -len(".flags")]
            with open(path, encoding="utf-8") as file:
                self.flags[name] = file.read().strip()
            if name != "compare":
                self.bench[name] = [
                    load(run) for run in sorted(glob.glob(os.path.join(directory, f"{name}.*.json")))
                ]
        path = os.path.join(directory, "compare.json")
        self.compare = load(path) if os.path.exists(path) and os.path.getsize(path) else None

    def command(self, name):
        if name == "compare":
            return f"compare --dir D {self.flags.get(name, '')}"
        verb, _, flags = self.flags.get(name, "append").partition(" ")
        return " ".join(f"highwater bench {verb} --dir D {flags} --format json".split())

    def all_runs(self):
        return [run for runs in self.bench.values() for run in runs]

    def row_of(self, workload, engine, phase):
        """Returns the row of the comparison, or None."""
        rows = self.compare["rows"] if self.compare else []
        same = [
            row
            for row in rows
            if (row["workload"], row["engine"], row["phase"]) == (workload, engine, phase)
        ]
        return same[0] if same else None

    def ratio(self, workload, figure, ours, phase):
        """Returns the ratios to the best other engine, round by round, and that engine."""
        for found in self.compare["ratios"] if self.compare else []:
            key = (found["workload"], found["figure"], found["ours"], found["phase"])
            if key == (workload, figure, ours, phase):
                return from_json(found["ratio"]), found["best_other"]
        return None, None


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def from_json(found):
    if found is None:
        return None
    made = Spread([found["median"]])
    made.low, made.high, made.n = found["min"], found["max"], found["n"]
    return made


def stream_rows(raw):
    subject = "64 KiB batches, ack before flush: bytes/s by the floor's"
    for phase, bar in (("steady", (">=", 0.95)), ("cold", None)):
        name = f"stream-{phase}"
        runs = raw.bench.get(name, [])
        ours = spread(runs, lambda run: run["payload_bytes_per_s"] / 1e6)
        floor = spread(runs, lambda run: run["floor"]["bytes_per_s"] / 1e6)
        beside = ours and f"ours {ours.text(0)}, floor {floor.text(0)} MB/s"
        ratio = spread(runs, lambda run: run["ratio_to_floor"])
        yield Row(f"{subject}, {phase}", name, ratio, 3, "x", bar, beside or "")


def rival_rows(raw):
    for workload, shape in (("1kib-x16", "1 KiB x 16"), ("100b-x100", "100 B x 100")):
        for phase, limit in (("steady", 1.2), ("cold", 1.0)):
            ratio, other = raw.ratio(workload, "payload_mb_per_s", "highwater", phase)
            beside = ""
            if other:
                ours = from_json(raw.row_of(workload, "highwater", phase)["payload_mb_per_s"])
                theirs = from_json(raw.row_of(workload, other, "cold")["payload_mb_per_s"])
                beside = f"ours {ours.text(0)}, {other} {theirs.text(0)} MB/s"
            subject = f"{shape}, ack before flush: bytes/s by the best other engine's, {phase}"
            yield Row(subject, "compare", ratio, 2, "x", (">=", limit), beside)


def latency_rows(raw):
    def extra(run):
        return run["ack_us"]["p50"] - run["floor"]["latency_us"]["p50"]

    for name, way in (("durable-queued", "queue"), ("durable-local", "LocalEngine")):
        runs = raw.bench.get(name, [])
        subject = f"1 writer, 1 KiB, each flushed, {way}"
        p50 = spread(runs, lambda run: run["ack_us"]["p50"])
        floor = spread(runs, lambda run: run["floor"]["latency_us"]["p50"])
        beside = p50 and f"ours {p50.text(1)}, floor {floor.text(1)} us"
        limit = 8.0
        if name == "durable-queued" and runs:
            wake = spread(runs, lambda run: run["wake_round_trip_us"])
            limit = round(2 * wake.median + 10, 1)
            beside += f"; wake round trip {wake.text(1)} us"
        above = spread(runs, extra)
        yield Row(f"{subject}: p50 above the floor's", name, above, 1, "us", ("<=", limit), beside or "")
        cpu = spread(runs, lambda run: run["cpu_us_per_batch"] / run["floor"]["cpu_us_per_write"])
        ours = spread(runs, lambda run: run["cpu_us_per_batch"])
        theirs = spread(runs, lambda run: run["floor"]["cpu_us_per_write"])
        beside = ours and f"ours {ours.text(1)}, floor {theirs.text(1)} us"
        yield Row(f"{subject}: CPU by the floor's", name, cpu, 2, "x", ("<=", 2), beside or "")
    ratio, other = raw.ratio("durable-1kib", "append_p50_us", "highwater-local", "cold")
    beside = ""
    if other:
        ours = from_json(raw.row_of("durable-1kib", "highwater-local", "cold")["append_p50_us"])
        theirs = from_json(raw.row_of("durable-1kib", other, "cold")["append_p50_us"])
        beside = f"ours {ours.text(1)}, {other} {theirs.text(1)} us"
    subject = "1 writer, 1 KiB, each flushed, LocalEngine: p50 by the best other engine's"
    yield Row(subject, "compare", ratio, 2, "x", ("<=", 1.05), beside)


def group_rows(raw):
    runs = raw.bench.get("group", [])
    subject = "64 appends in flight, 2 producers, 100 B, each flushed"
    ours = spread(runs, lambda run: run["flushes_per_s"])
    floor = spread(runs, lambda run: run["floor"]["writes_per_s"])
    beside = ours and f"ours {ours.text(0)}, floor {floor.text(0)} a second"
    ratio = spread(runs, lambda run: run["flushes_per_s"] / run["floor"]["writes_per_s"])
    yield Row(f"{subject}: flushes/s by the floor's", "group", ratio, 2, "x", (">=", 0.9), beside or "")
    records = spread(runs, lambda run: run["records_per_flush"])
    yield Row(f"{subject}: records in a flush", "group", records, 1, "", (">=", 24))


def cost_rows(raw):
    best = None
    for row in raw.compare["rows"] if raw.compare else []:
        if row["workload"] == "1kib-x16" and not row["engine"].startswith("highwater"):
            cpu = from_json(row["cpu_s_per_gib"])
            if best is None or cpu.median < best[0].median:
                best = cpu, row["engine"]
    beside = f"{best[1]} {best[0].text(2)} s/GiB in compare" if best else ""
    for phase, bar in (("steady", ("<=", 0.6)), ("cold", None)):
        name = f"kib16-{phase}"
        cpu = spread(raw.bench.get(name, []), lambda run: run["cpu_s_per_gib"])
        subject = f"1 KiB x 16, ack before flush: CPU for each GiB, {phase}"
        yield Row(subject, name, cpu, 2, "s", bar, beside)
    for phase, bar in (("steady", (">=", 5)), ("cold", None)):
        name = f"small-{phase}"
        runs = raw.bench.get(name, [])
        records = spread(runs, lambda run: run["records_per_s"] / 1e6)
        floor = spread(runs, lambda run: run["ratio_to_floor"])
        beside = floor and f"{floor.text(2)} x the floor's bytes/s"
        subject = f"100 B x 100, ack before flush: records/s, {phase}"
        yield Row(subject, name, records, 2, "M", bar, beside or "")
    runs = raw.bench.get("disk", [])
    disk = spread(runs, lambda run: run["disk_bytes_per_payload_byte"])
    device = spread(
        runs,
        lambda run: run["device_bytes_written"] and run["device_bytes_written"] / run["payload_bytes"],
    )
    beside = device and f"device wrote {device.text(1)} for each"
    subject = "100 B, 1 writer, each flushed: log bytes for each payload byte"
    yield Row(subject, "disk", disk, 2, "", ("<=", 2.2), beside or "")


def wide_rows(raw):
    """Many logs: each round's runs stand beside that round's run of one log."""
    one = raw.bench.get("wide-one", [])
    for name, limit, what in (("wide", 0.2, ""), ("wide-shared", 0.5, ", one flush for all")):
        runs = raw.bench.get(name, [])
        pairs = [
            many["records_per_s"] / alone["records_per_s"] for many, alone in zip(runs, one)
        ]
        ours = spread(runs, lambda run: run["records_per_s"] / 1e3)
        alone = spread(one, lambda run: run["records_per_s"] / 1e3)
        beside = ours and alone and f"500 logs {ours.text(0)}, one {alone.text(0)} thousand records/s"
        ratio = Spread(pairs) if pairs else None
        subject = f"500 logs, 2 shards, 64 in flight, 100 B, each flushed{what}: records/s by one log's"
        yield Row(subject, name, ratio, 2, "x", (">=", limit), beside or "")


def read_rows(raw):
    runs = raw.bench.get("read", [])
    ratio = spread(runs, lambda run: run["ratio_to_floor"])
    ours = spread(runs, lambda run: run["bytes_per_s"] / 1e6)
    floor = spread(runs, lambda run: run["floor_bytes_per_s"] / 1e6)
    beside = ours and f"ours {ours.text(0)}, raw {floor.text(0)} MB/s"
    subject = "sealed segments, cold, every batch verified: bytes/s by raw reads'"
    yield Row(subject, "read", ratio, 2, "x", (">=", 0.9), beside or "")
    runs = raw.bench.get("follow", [])
    ratio = spread(runs, lambda run: run["ratio"])
    pairs = [pair["ratio"] for run in runs for pair in run["pairs"] if pair["ratio"]]
    beside = f"its pairs of rounds: {Spread(pairs).text(2)}" if pairs else ""
    subject = "an appender beside a reader at the tail: bytes/s by those alone"
    yield Row(subject, "follow", ratio, 2, "x", (">=", 0.9), beside)


def open_rows(raw):
    runs = raw.bench.get("open", [])
    gib = spread(runs, lambda run: run["log_bytes"] / (1 << 30))
    subject = "open for append after a kill"
    took = spread(runs, lambda run: run["elapsed_s"] * 1e3)
    floor = spread(runs, lambda run: run["ratio_to_floor"])
    beside = gib and f"log of {gib.text(1)} GiB; {floor.text(2)} x raw reads of as many bytes"
    yield Row(subject, "open", took, 0, "ms", ("<=", 500), beside or "")
    # Two segments and 4 MiB.
    limit = 2 * 128 + 4
    read = spread(runs, lambda run: run["process_bytes_read"] and run["process_bytes_read"] / (1 << 20))
    yield Row(f"{subject}: bytes read", "open", read, 1, "MiB", ("<=", limit))


def memory_rows(raw):
    runs = raw.bench.get("memory", [])
    peak = spread(runs, lambda run: run["peak_rss_bytes"] / (1 << 20))
    gib = spread(runs, lambda run: run["payload_bytes"] / (1 << 30))
    short = spread(raw.bench.get("stream-steady", []), lambda run: run["peak_rss_bytes"] / (1 << 20))
    beside = gib and short and f"over {gib.text(1)} GiB; over the shorter stream-steady {short.text(0)} MiB"
    yield Row("memory of one shard at the most", "memory", peak, 0, "MiB", ("<=", 256), beside or "")


def rows(raw):
    parts = (
        stream_rows,
        rival_rows,
        latency_rows,
        group_rows,
        cost_rows,
        wide_rows,
        read_rows,
        open_rows,
        memory_rows,
    )
    for part in parts:
        yield from part(raw)


def git(*words):
    try:
        made = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
        return made.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def fingerprint(raw):
    """Returns the machine and the build as (name, value)."""
    runs = raw.all_runs()
    if not runs:
        return []
    env = runs[0]["env"]
    shown = [
        ("disk", f"{env['disk']} ({env['disk_model']}), scheduler {env['scheduler']}"),
        ("write cache, FUA", f"{env['cache']}, {'FUA' if env['fua'] else 'no FUA'}"),
        ("file system", f"{env['fs']} on {env['mount']} ({env['mount_options']})"),
        ("kernel", env["kernel"]),
        ("processors", f"{env['cpus']} x {env['cpu']}"),
        ("backend", f"{runs[0]['backend']}, {runs[0]['io']} I/O"),
        ("load before each run", spread(runs, lambda run: run["env"]["load_before"]).text(2)),
        ("build", f"{env['build']}, version {runs[0]['version']}"),
    ]
    commit = git("rev-parse", "--short", "HEAD")
    if commit:
        changed = ", with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        shown.append(("commit", commit + changed))
    shown.append(("day", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")))
    return shown


def warnings(raw):
    """Returns the kinds of warnings of all runs, each once with how many runs gave it."""
    counted = {}
    for run in raw.all_runs():
        for warning in run["warnings"]:
            kind = warning.split("(")[0].split(":")[0].strip()
            first, count = counted.get(kind, (warning, 0))
            counted[kind] = first, count + 1
    runs = len(raw.all_runs())
    lines = [f"{first} [{count} of {runs} runs]" for first, count in counted.values()]
    failed = raw.compare["failures"] if raw.compare else ["compare gave no result"]
    return lines + failed


def text(raw):
    """Prints the table; returns whether every bar was measured."""
    shown = list(rows(raw))
    for name, value in fingerprint(raw):
        print(f"{name:>20}  {value}")
    print()
    width = max(len(row.subject) for row in shown)
    measured = max(len(row.measured) for row in shown)
    for row in shown:
        line = f"{row.verdict:<12} {row.subject:<{width}}  {row.measured:<{measured}}  {row.bar:<12}"
        print(f"{line} {row.beside}".rstrip())
        print(f"{'':<12}   $ {raw.command(row.run)}")
    print()
    short = sum(row.verdict == "SHORT" for row in shown)
    missing = sum(row.verdict == "not measured" for row in shown)
    passed = sum(row.verdict == "pass" for row in shown)
    print(f"{passed} pass, {short} short, {missing} not measured; medians (min..max) of interleaved runs")
    for warning in warnings(raw):
        print(f"warning: {warning}")
    return missing == 0


def markdown(raw):
    print("# Results of one machine\n")
    print("Written by `benches/bars.sh --record`; how each figure is made: [measuring](measuring.md) and")
    print("[comparison](comparison.md). Medians (smallest..largest) of interleaved runs.\n")
    print("| the machine | |\n|---|---|")
    for name, value in fingerprint(raw):
        print(f"| {name} | {value} |")
    print("\n## Bars\n\n| figure | measured | bar | | beside it | run |\n|---|---|---|---|---|---|")
    shown = list(rows(raw))
    for row in shown:
        cells = (row.subject, row.measured, row.bar, row.verdict, row.beside, f"`{row.run}`")
        print("| " + " | ".join(cells) + " |")
    print("\n## Runs\n\n| run | command |\n|---|---|")
    for name in dict.fromkeys(row.run for row in shown):
        print(f"| `{name}` | `{raw.command(name)}` |")
    comparison(raw)
    noted = warnings(raw)
    if noted:
        print("\n## Doubts\n")
        for warning in noted:
            print(f"* {warning}")


def comparison(raw):
    if not raw.compare:
        return
    print("\n## Engines\n")
    print("| workload | engine | phase | MB/s | CPU s/GiB | CPU elsewhere s | append p50 us | p99 us |")
    print("|---|---|---|---|---|---|---|---|")
    for row in raw.compare["rows"]:
        durable = row["append_p50_us"] is not None

        def cell(name, digits, wanted):
            return from_json(row[name]).text(digits) if wanted and row[name] else "-"

        cells = (
            row["workload"],
            row["engine"],
            row["phase"],
            cell("payload_mb_per_s", 0, not durable),
            cell("cpu_s_per_gib", 2, not durable),
            cell("cpu_elsewhere_s", 1, not durable),
            cell("append_p50_us", 0, durable),
            cell("append_p99_us", 0, durable),
        )
        print("| " + " | ".join(cells) + " |")


def self_test():
    three = spread([{"a": 3}, {"a": 1}, {"a": None}, {"a": 2}], lambda run: run["a"])
    assert (three.median, three.low, three.high, three.n) == (2, 1, 3, 3)
    assert spread([{"a": None}], lambda run: run["a"]) is None
    at = Spread([0.95])
    assert Row("s", "r", at, 2, "x", (">=", 0.95)).verdict == "pass"
    assert Row("s", "r", at, 2, "x", (">=", 0.96)).verdict == "SHORT"
    assert Row("s", "r", at, 2, "x", ("<=", 0.95)).verdict == "pass"
    assert Row("s", "r", at, 2, "x", ("<=", 0.94)).verdict == "SHORT"
    assert Row("s", "r", at, 2, "x", None).verdict == "beside"
    assert Row("s", "r", None, 2, "x", (">=", 1)).verdict == "not measured"
    print("ok")


def main(words):
    if words == ["--self-test"]:
        self_test()
    elif len(words) == 2 and words[1] == "--markdown":
        markdown(Raw(words[0]))
    elif len(words) == 1 and os.path.isdir(words[0]):
        return 0 if text(Raw(words[0])) else 1
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
