//! The invariants of absence, so that they stay true: what the sources must not contain.
//!
//! Each rule is a function from one file (its path and its text) to complaints, and is tested with
//! a planted violation. What is *not* checked: anything that needs types, and code in macros.

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 800;
const COLUMNS_MAX: usize = 100;
/// Crates that stand for processes and files of the outside world.
const OUTSIDE: [&str; 4] = ["io/", "cli/", "crash/", "benches/"];

type Rule = fn(&str, &str) -> Vec<String>;

const RULES: [(&str, Rule); 8] = [
    ("unsafe only in io, each with SAFETY", unsafe_only_in_io),
    ("every other crate forbids unsafe", roots_forbid_unsafe),
    ("no files, clocks, threads or sleep inside", no_outside_world),
    ("io does not know what is in the files", io_knows_no_records),
    ("dependencies point down", dependencies_point_down),
    ("files and lines are short and plain", short_and_plain),
    ("nothing unfinished, nothing ignored", nothing_unfinished),
    ("links in documents lead somewhere", links_resolve),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns all sources, manifests and documents, as paths from the root with their texts.
fn files() -> Vec<(String, String)> {
    let (mut found, mut waiting) = (Vec::new(), vec![root()]);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).expect("listed").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let generated = ["target", "corpus", "artifacts", "data", "coverage"];
            if path.is_dir() {
                if !name.starts_with('.') && !generated.contains(&name.as_str()) {
                    waiting.push(path);
                }
            } else if [".rs", ".toml", ".md"].iter().any(|end| name.ends_with(end)) {
                let short = path.strip_prefix(root()).expect("below the root");
                let text = std::fs::read_to_string(&path).expect("text");
                found.push((short.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// Returns the code of a line, without a comment behind it.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn is_test(path: &str) -> bool {
    // An example is a program of somebody's: the outside world.
    ["/tests/", "/examples/"].iter().any(|part| path.contains(part)) || path.ends_with("_tests.rs")
}

/// Returns the lines of code before the unit tests, numbered from 1.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    product.lines().enumerate().map(|(index, line)| (index + 1, code(line)))
}

fn unsafe_only_in_io(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !path.ends_with(".rs") || path == "engine/tests/tidy.rs" {
        return complaints;
    }
    let lines: Vec<_> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let code = code(line);
        if !["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait"]
            .iter()
            .any(|w| code.contains(w))
        {
            continue;
        }
        let above = &lines[index.saturating_sub(8)..index];
        if !path.starts_with("io/") {
            complaints.push(format!("{path}:{}: unsafe outside io", index + 1));
        } else if !above.iter().any(|line| line.contains("// SAFETY:")) {
            complaints.push(format!("{path}:{}: unsafe without SAFETY", index + 1));
        }
    }
    complaints
}

fn roots_forbid_unsafe(path: &str, text: &str) -> Vec<String> {
    let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let exempt = path.starts_with("io/");
    if is_root && !exempt && !text.contains("#![forbid(unsafe_code)]") {
        return vec![format!("{path}: lacks #![forbid(unsafe_code)]")];
    }
    Vec::new()
}

fn no_outside_world(path: &str, text: &str) -> Vec<String> {
    let banned = [
        "std::fs",
        "std::net",
        "Instant::now",
        "SystemTime::now",
        "std::thread::spawn",
        "std::thread::Builder",
        "thread::sleep",
        "rand::",
    ];
    let exempt = OUTSIDE.iter().any(|start| path.starts_with(start));
    if !path.ends_with(".rs") || exempt || is_test(path) || path.starts_with("fuzz/") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (number, line) in product_lines(text) {
        for word in banned.iter().filter(|word| line.contains(**word)) {
            complaints.push(format!("{path}:{number}: {word}"));
        }
    }
    complaints
}

fn io_knows_no_records(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("io/src") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (number, line) in product_lines(text) {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        // `byte_offset` and the kernel's `offset` parameter are places in files, not in logs.
        if words.any(|word| ["segment", "batch", "Segment", "Batch", "Offset"].contains(&word)) {
            complaints.push(format!("{path}:{number}: io names what is in a file"));
        }
    }
    complaints
}

fn dependencies_point_down(path: &str, text: &str) -> Vec<String> {
    let banned: &[&str] = match path {
        "io/Cargo.toml" | "segment/Cargo.toml" | "index/Cargo.toml" => &["highwater"],
        "engine/Cargo.toml" => &[
            "highwater-sim",
            "highwater-cli",
            "highwater-crash",
            "highwater-benches",
            "replicator",
        ],
        "sim/Cargo.toml" => &["highwater-cli", "highwater-crash"],
        "crash/Cargo.toml" | "cli/Cargo.toml" => &["highwater-sim"],
        _ => &[],
    };
    let system = ["libc", "io-uring", "memmap"];
    let mut complaints = Vec::new();
    let mut in_dependencies = false;
    for line in text.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies") && path != "Cargo.toml";
        } else if in_dependencies {
            let foreign = banned.iter().any(|name| line.starts_with(name));
            let kernel = path != "io/Cargo.toml" && system.iter().any(|n| line.starts_with(n));
            if foreign || kernel {
                complaints.push(format!("{path}: {line}"));
            }
        }
    }
    let product = path.starts_with("engine/src") && text.contains("replicator::");
    complaints.extend(product.then(|| format!("{path}: the engine names the replicator")));
    complaints
}

fn short_and_plain(path: &str, text: &str) -> Vec<String> {
    if !path.ends_with(".rs") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    let count = text.lines().count();
    if count > LINES_MAX {
        complaints.push(format!("{path}: {count} lines, more than {LINES_MAX}"));
    }
    for (index, line) in text.lines().enumerate() {
        if !line.is_ascii() {
            complaints.push(format!("{path}:{}: not ASCII", index + 1));
        }
        // A long string of a message is left whole.
        if line.chars().count() > COLUMNS_MAX && !line.contains('"') {
            complaints.push(format!("{path}:{}: more than {COLUMNS_MAX} columns", index + 1));
        }
    }
    complaints
}

fn nothing_unfinished(path: &str, text: &str) -> Vec<String> {
    if !path.ends_with(".rs") || path == "engine/tests/tidy.rs" {
        return Vec::new();
    }
    let rig = path.starts_with("crash/src");
    let marks =
        ["todo!(", "unimplemented!(", "FIXME", "XXX", "HACK", "#[ignore", "thread::sleep", "dbg!("];
    let found = |(index, line): (usize, &str)| {
        let mark = marks.iter().find(|mark| line.contains(**mark))?;
        // A rig that waits for another process's device has nothing else to wait by.
        if rig && *mark == "thread::sleep" {
            return None;
        }
        Some(format!("{path}:{}: {mark}", index + 1))
    };
    text.lines().enumerate().filter_map(found).collect()
}

fn links_resolve(path: &str, text: &str) -> Vec<String> {
    if !path.ends_with(".md") {
        return Vec::new();
    }
    let folder = Path::new(path).parent().unwrap_or(Path::new("")).to_owned();
    let mut complaints = Vec::new();
    for rest in text.split("](").skip(1) {
        let link = rest.split([')', '#']).next().unwrap_or_default();
        let outside = link.is_empty() || link.contains("://") || link.contains(' ');
        if !outside && !root().join(&folder).join(link).exists() {
            complaints.push(format!("{path}: {link} is not there"));
        }
    }
    complaints
}

#[test]
fn the_house_keeps_its_invariants_of_absence() {
    let files = files();
    assert!(files.len() > 80, "only {} files were found", files.len());
    let mut complaints = Vec::new();
    for (rule, check) in RULES {
        for (path, text) in &files {
            complaints.extend(check(path, text).into_iter().map(|c| format!("{rule}: {c}")));
        }
    }
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn the_changelog_has_a_place_for_what_comes() {
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).expect("read");
    assert!(text.contains("\n## Unreleased\n"));
}

#[test]
fn every_rule_catches_a_planted_violation() {
    let planted: [(Rule, &str, &str); 13] = [
        (unsafe_only_in_io, "engine/src/a.rs", "fn f() { unsafe { g() } }"),
        (unsafe_only_in_io, "io/src/a.rs", "fn f() { unsafe { g() } }"),
        (roots_forbid_unsafe, "sim/src/lib.rs", "//! A crate."),
        (no_outside_world, "segment/src/a.rs", "use std::fs::File;"),
        (no_outside_world, "engine/src/a.rs", "let now = Instant::now();"),
        (io_knows_no_records, "io/src/a.rs", "fn write(batch: &[u8]) {}"),
        (dependencies_point_down, "io/Cargo.toml", "[dependencies]\nhighwater-segment = \"1\""),
        (dependencies_point_down, "engine/Cargo.toml", "[dependencies]\nlibc = \"1\""),
        (dependencies_point_down, "engine/src/a.rs", "use replicator::leader;"),
        (short_and_plain, "io/src/a.rs", "// \u{fc}"),
        (short_and_plain, "io/src/a.rs", &"\n".repeat(LINES_MAX + 1)),
        (nothing_unfinished, "io/src/a.rs", "fn f() { todo!() }"),
        (links_resolve, "README.md", "[nothing](docs/nothing.md)"),
    ];
    for (rule, path, text) in planted {
        assert_eq!(rule(path, text).len(), 1, "{path}: {text:.60}");
    }
}
