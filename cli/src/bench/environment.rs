//! The machine beneath a result: disk, file system, kernel, processor - and what about it makes
//! figures doubtful.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A flush faster than this reached no medium that we know.
const FLUSH_TOO_GOOD_US: f64 = 20.0;
/// So much load for each processor before the run makes its figures doubtful.
const LOAD_MAX: f64 = 0.5;

/// The machine, as far as it can be read without privileges.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Environment {
    /// The disk's name in `/sys/block`; `null` if the file system has none (tmpfs, network).
    pub(crate) disk: Option<String>,
    /// What it calls itself.
    pub(crate) disk_model: Option<String>,
    /// `write back` or `write through`: whether it has a volatile cache.
    pub(crate) cache: Option<String>,
    /// Whether a single write can be forced to the media.
    pub(crate) fua: Option<bool>,
    /// Whether it turns.
    pub(crate) rotational: Option<bool>,
    /// The scheduler in use.
    pub(crate) scheduler: Option<String>,
    /// Whether a hypervisor stands between us and the media.
    pub(crate) virtual_disk: bool,
    pub(crate) fs: Option<String>,
    pub(crate) mount: Option<String>,
    pub(crate) mount_options: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) cpu: Option<String>,
    pub(crate) cpus: usize,
    /// The load of one minute before the run.
    pub(crate) load_before: Option<f64>,
    pub(crate) build: &'static str,
}

impl Environment {
    /// Looks at the machine beneath an existing directory.
    pub(crate) fn of(directory: &Path) -> Self {
        let mount = Mount::of(directory);
        let block = mount.as_ref().and_then(|mount| block_directory(directory, mount));
        let queue = |name: &str| read(&block.as_ref()?.join("queue").join(name));
        let yes_or_no = |name: &str| queue(name).map(|text| text != "0");
        Environment {
            disk: block.as_deref().and_then(file_name),
            disk_model: block.as_deref().and_then(model),
            cache: queue("write_cache"),
            fua: yes_or_no("fua"),
            rotational: yes_or_no("rotational"),
            scheduler: queue("scheduler").map(|all| chosen(&all)),
            virtual_disk: block.as_deref().is_some_and(is_virtual),
            fs: mount.as_ref().map(|mount| mount.fs.clone()),
            mount_options: mount.as_ref().map(|mount| mount.options.clone()),
            mount: mount.map(|mount| mount.point),
            kernel: read(Path::new("/proc/sys/kernel/osrelease")),
            cpu: cpu_model(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load_before: load(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

    /// Returns what makes figures of this machine doubtful before anything was measured.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.build == "debug" {
            warnings.push("this is a debug build; build with --release to measure".to_owned());
        }
        if let Some(load) = self.load_before {
            let cpus = u32::try_from(self.cpus).unwrap_or(u32::MAX);
            if load > LOAD_MAX * f64::from(cpus) {
                warnings.push(format!(
                    "the machine is loaded (load {load:.2} on {cpus} processors): latencies and \
                     throughput are worse than they would be, and not repeatable"
                ));
            }
        }
        if self.virtual_disk {
            warnings.push(format!(
                "{} is a virtual disk: whether the host carries a flush to its media cannot be \
                 verified from here",
                self.disk.as_deref().unwrap_or("this")
            ));
        }
        let named = |start: &str| self.disk.as_ref().is_some_and(|name| name.starts_with(start));
        if named("loop") {
            warnings.push(
                "the disk is a file of another file system (a loop device): that one's flushes and \
                 caches are in every figure"
                    .to_owned(),
            );
        }
        if named("ram") || named("zram") {
            warnings.push("the disk is memory: nothing here survives a power cut".to_owned());
        }
        if self.disk.is_none() {
            let fs = self.fs.as_deref().unwrap_or("this file system");
            warnings.push(format!("{fs} has no disk of its own here: a flush may mean nothing"));
        }
        warnings
    }

    /// Returns whether a flush of so many microseconds (the median) cannot have reached media.
    pub(crate) fn too_good(&self, flush_us: Option<f64>) -> Option<String> {
        let flush_us = flush_us.filter(|flush_us| *flush_us < FLUSH_TOO_GOOD_US)?;
        let cache = self.cache.as_deref().unwrap_or("unknown");
        Some(format!(
            "a write with its flush takes {flush_us:.1} us here: too good to be true for media \
             (write cache: {cache}); the flush was probably dropped on the way (tmpfs, nobarrier, \
             an unsafe cache of the host), or the disk keeps its cache through a power cut"
        ))
    }

    /// Returns the line that says what the disk is.
    pub(crate) fn disk_line(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let model = self.disk_model.as_ref().map(|model| format!(" ({model})")).unwrap_or_default();
        let fua = match self.fua {
            Some(true) => "FUA",
            Some(false) => "no FUA",
            None => "FUA unknown",
        };
        let kind = if self.virtual_disk { "virtual, " } else { "" };
        let disk = self.disk.clone().unwrap_or_else(|| "no disk".to_owned());
        format!(
            "{disk}{model}: {kind}cache {}, {fua}; {} on {} ({}); Linux {}; {} x {}",
            text(&self.cache),
            text(&self.fs),
            text(&self.mount),
            text(&self.mount_options),
            text(&self.kernel),
            self.cpus,
            text(&self.cpu),
        )
    }
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    point: String,
    options: String,
    fs: String,
    source: String,
}

impl Mount {
    fn of(directory: &Path) -> Option<Mount> {
        let directory = directory.canonicalize().ok()?;
        let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mounts = text.lines().filter_map(Mount::parse);
        let above = mounts.filter(|mount| directory.starts_with(&mount.point));
        // Of two on the same place the later one is on top.
        above.enumerate().max_by_key(|(index, mount)| (mount.point.len(), *index)).map(|(_, m)| m)
    }

    fn parse(line: &str) -> Option<Mount> {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<_> = front.split(' ').collect();
        let back: Vec<_> = back.split(' ').collect();
        let own = front.get(5)?;
        let of_fs = back.get(2)?;
        Some(Mount {
            device: (*front.get(2)?).to_owned(),
            // The kernel writes a space in a path as an octal number.
            point: front.get(4)?.replace("\\040", " "),
            options: format!("{own};{of_fs}"),
            fs: (*back.first()?).to_owned(),
            source: (*back.get(1)?).to_owned(),
        })
    }
}

/// Returns the directory in `/sys` of the whole disk beneath a file system.
fn block_directory(directory: &Path, mount: &Mount) -> Option<PathBuf> {
    let number = std::fs::metadata(directory).ok()?.dev();
    let major = (number >> 8 & 0xfff) | (number >> 32 & !0xfff);
    let minor = (number & 0xff) | (number >> 12 & !0xff);
    let by_number = [format!("{major}:{minor}"), mount.device.clone()]
        .into_iter()
        .map(|device| Path::new("/sys/dev/block").join(device));
    // Some file systems have numbers of their own; their source names the disk.
    let source = Path::new(&mount.source).canonicalize().ok();
    let by_source = source.as_deref().and_then(file_name);
    let by_source = by_source.map(|name| Path::new("/sys/class/block").join(name));
    let found = by_number.chain(by_source).find_map(|path| path.canonicalize().ok())?;
    if found.join("partition").exists() {
        return found.parent().map(Path::to_owned);
    }
    Some(found)
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn model(block: &Path) -> Option<String> {
    let device = block.join("device");
    let parts = ["vendor", "model"].map(|name| read(&device.join(name)));
    let words: Vec<_> =
        parts.into_iter().flatten().filter(|part| !part.starts_with("0x")).collect();
    let driver = || device.join("driver").canonicalize().ok().as_deref().and_then(file_name);
    let backing = || read(&block.join("loop/backing_file"));
    if words.is_empty() { driver().or_else(backing) } else { Some(words.join(" ")) }
}

/// Returns whether a hypervisor provides the disk, as far as its driver or its name tells.
fn is_virtual(block: &Path) -> bool {
    let by_name =
        file_name(block).is_some_and(|name| name.starts_with("vd") || name.starts_with("xvd"));
    let model = model(block).unwrap_or_default().to_lowercase();
    let words = ["virtio", "qemu", "virtual", "vmware", "xen", "vbox", "amazon", "google"];
    by_name || words.iter().any(|word| model.contains(word))
}

/// Returns the word in brackets, or all.
fn chosen(all: &str) -> String {
    let inside = all.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(all, |(word, _)| word).to_owned()
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let names = ["model name", "Model", "cpu model", "Hardware"];
    let line = text.lines().find(|line| names.iter().any(|name| line.starts_with(name)))?;
    line.split_once(':').map(|(_, model)| model.trim().to_owned())
}

fn load() -> Option<f64> {
    read(Path::new("/proc/loadavg"))?.split(' ').next()?.parse().ok()
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The counters of a disk. They count everybody's use of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceCounters {
    pub(crate) bytes_written: u64,
    /// Flushes that reached the device (Linux 5.5 and later).
    pub(crate) flushes: Option<u64>,
}

impl DeviceCounters {
    /// Reads the counters of the disk beneath a directory, if it has one.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let block = block_directory(directory, &Mount::of(directory)?)?;
        Self::parse(&read(&block.join("stat"))?)
    }

    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<u64> =
            text.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let sectors = fields.get(6)?;
        Some(DeviceCounters { bytes_written: sectors * 512, flushes: fields.get(15).copied() })
    }

    /// Returns what was counted since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let flushes = self.flushes.zip(earlier.flushes);
        DeviceCounters {
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
            flushes: flushes.map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_options_and_its_source() {
        let line = "36 35 254:1 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/vda1 rw,discard";
        let mount = Mount::parse(line).expect("a mount");
        let expected = Mount {
            device: "254:1".to_owned(),
            point: "/mnt/a b".to_owned(),
            options: "rw,noatime;rw,discard".to_owned(),
            fs: "ext4".to_owned(),
            source: "/dev/vda1".to_owned(),
        };
        assert_eq!(mount, expected);
        assert_eq!(Mount::parse("36 35 254:1 /"), None);
    }

    #[test]
    fn device_counters_are_taken_from_their_columns() {
        let text = "1 2 3 4 5 6 700 8 0 10 11 12 13 14 15 59 1523";
        let counters = DeviceCounters::parse(text).expect("counters");
        assert_eq!(counters, DeviceCounters { bytes_written: 700 * 512, flushes: Some(59) });
        let old = DeviceCounters::parse("1 2 3 4 5 6 700 8 0 10 11").expect("counters");
        assert_eq!(counters.since(old), DeviceCounters { bytes_written: 0, flushes: None });
        assert_eq!(DeviceCounters::parse("1 2"), None);
    }

    #[test]
    fn doubtful_machines_are_named() {
        let calm = Environment {
            disk: Some("nvme0n1".to_owned()),
            cpus: 2,
            load_before: Some(0.9),
            build: "release",
            ..Environment::default()
        };
        assert_eq!(calm.warnings(), Vec::<String>::new());
        let loaded = Environment { load_before: Some(1.1), ..calm.clone() };
        assert!(loaded.warnings()[0].contains("loaded"));
        let in_file = Environment { disk: Some("loop0".to_owned()), ..calm.clone() };
        assert!(in_file.warnings()[0].contains("loop device"));
        let hosted = Environment { virtual_disk: true, ..calm.clone() };
        assert!(hosted.warnings()[0].contains("virtual disk"));
        assert!(calm.too_good(Some(19.0)).is_some() && calm.too_good(Some(21.0)).is_none());
    }
}
