//! A tiny key-value store with Highwater as its write-ahead log.
//!
//! Every change is a record, flushed before it is applied: what `set` returned for survives a power
//! cut. Opening loads the last checkpoint and replays what is behind it. A checkpoint is a file of
//! its own; once it is durable the log is trimmed up to it.
//!
//! `cargo run -p highwater --example key_value`
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use highwater::{Ack, Engine, Isolation, Log, LogOptions, Offset, Options, RecordBatch};

struct Store {
    engine: Engine,
    log: Log,
    checkpoint: PathBuf,
    map: BTreeMap<String, String>,
}

impl Store {
    fn open(directory: &Path) -> Result<Store, Box<dyn Error>> {
        let engine = Engine::open(Options::at(directory.join("log")))?;
        let log = engine.log("changes", LogOptions::default())?;
        let checkpoint = directory.join("checkpoint");
        let (from, map) = load(&checkpoint)?;
        let mut store = Store { engine, log, checkpoint, map };
        // Behind an opening all that the log holds is flushed, so nothing that is applied here can
        // vanish again.
        for batch in store.log.read(from, Isolation::Durable)? {
            for record in batch?.records() {
                let record = record?;
                store.apply(text(record.key)?, record.value.map(|v| text(Some(v))).transpose()?);
            }
        }
        Ok(store)
    }

    /// Sets a key, or removes it. Durable when it returns.
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), Box<dyn Error>> {
        let mut builder = RecordBatch::builder();
        builder.push(None, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
        // An error says by `outcome()` whether the change may be there after all: `Unknown` means
        // that only opening the store again tells.
        self.log.append(builder.build()?, Ack::LEADER_FLUSHED)?.wait()?;
        self.apply(key.to_owned(), value.map(str::to_owned));
        Ok(())
    }

    fn apply(&mut self, key: String, value: Option<String>) {
        match value {
            Some(value) => drop(self.map.insert(key, value)),
            None => drop(self.map.remove(&key)),
        }
    }

    /// Writes all down in one file and lets the log forget what led there.
    fn checkpoint(&self) -> Result<(), Box<dyn Error>> {
        let upto = self.log.marks().log_end;
        let (new, directory) = (self.checkpoint.with_extension("new"), self.checkpoint.parent());
        let mut file = File::create(&new)?;
        writeln!(file, "{upto}")?;
        for (key, value) in &self.map {
            writeln!(file, "{key}\t{value}")?;
        }
        file.sync_all()?;
        fs::rename(&new, &self.checkpoint)?;
        // The name, too: only then may the log forget.
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        self.log.trim(upto)?;
        Ok(())
    }
}

fn load(path: &Path) -> Result<(Offset, BTreeMap<String, String>), Box<dyn Error>> {
    if !path.exists() {
        return Ok((Offset(0), BTreeMap::new()));
    }
    let all = fs::read_to_string(path)?;
    let mut lines = all.lines();
    let upto = Offset(lines.next().unwrap_or("0").parse()?);
    let pairs = lines.filter_map(|line| line.split_once('\t'));
    Ok((upto, pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
}

fn text(bytes: Option<&[u8]>) -> Result<String, Box<dyn Error>> {
    Ok(String::from_utf8(bytes.unwrap_or_default().to_vec())?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("highwater-kv-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let mut store = Store::open(&directory)?;
    store.set("apple", Some("green"))?;
    store.set("plum", Some("blue"))?;
    store.checkpoint()?;
    store.set("apple", Some("red"))?;
    store.set("plum", None)?;
    let start = store.log.marks().log_start;
    drop(store); // As good as a crash: nothing is closed in order.
    let store = Store::open(&directory)?;
    println!(
        "from offset {start} on {} changes were replayed",
        store.log.marks().log_end.0 - start.0
    );
    assert_eq!(store.map, BTreeMap::from([("apple".to_owned(), "red".to_owned())]));
    store.engine.close()?;
    Ok(fs::remove_dir_all(&directory)?)
}

#[test]
fn it_runs() {
    main().expect("it keeps what it was told");
}
