//! One file: what is on the media, what is on its way there, and what a reader sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::content::{
    Content, Page, Ranges, SECTOR_BYTES, SECTORS, narrow, page_bytes, wide, zero_page,
};
use crate::buffer::BLOCK_BYTES;

/// Who made an unsynced change, and how far its submitter knows of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The operation.
    pub(super) operation: u64,
    /// When its end was reported, in reports so far. Only such changes are pinned by a flush
    /// submitted later.
    pub(super) reported: Option<u64>,
    /// Whether a living submitter got that report.
    pub(super) acknowledged: bool,
}

impl Origin {
    pub(super) fn of(operation: u64) -> Self {
        Origin { operation, reported: None, acknowledged: false }
    }

    /// Returns whether a flush submitted after `reports` reports covers this change.
    pub(super) fn covered(&self, reports: u64) -> bool {
        self.reported.is_some_and(|reported| reported < reports)
    }
}

/// One change of a file that a power cut may undo.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) origin: Origin,
    pub(super) change: Change,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    /// New pages from page `first` on; `None` where a pinned later change took their place or
    /// where they will never reach the media.
    Write { first: u64, pages: Arc<[Option<Arc<Page>>]> },
    /// The file reaches at least this far (a write or allocation beyond its end).
    Grow { to: u64 },
    /// The file is exactly this long.
    Set { to: u64 },
}

/// What becomes of one sector of an unsynced write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectorFate {
    Old,
    New,
    /// The first `bytes` are new; the rest is old or, if `garbage`, bytes derived from it.
    Torn {
        bytes: usize,
        garbage: Option<u8>,
    },
}

/// What becomes of an unsynced change.
pub(super) enum ChangeFate {
    Lost,
    Kept,
    Sectors(Box<dyn FnMut(u64) -> SectorFate>),
}

/// A page the cache shows although the media does not and never will hold it.
#[derive(Clone, Debug)]
struct Cached {
    page: Arc<Page>,
    /// Whether direct reads see it too (a device that lost a write still has it in its cache).
    direct: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    /// The last name it had, for messages.
    pub(super) path: PathBuf,
    pub(super) media: Content,
    /// Media and every pending change.
    pub(super) view: Content,
    /// In the order they took effect.
    pub(super) pending: Vec<Pending>,
    /// Names in the view.
    pub(super) links: u32,
    /// Open descriptors.
    pub(super) handles: u32,
    pub(super) space: Ranges,
    cached: BTreeMap<u64, Cached>,
    bad: BTreeSet<u64>,
    stale: BTreeMap<u64, Arc<Page>>,
}

impl SimFile {
    /// Returns an empty file with one name.
    pub(super) fn named(path: PathBuf) -> Self {
        SimFile { path, links: 1, ..SimFile::default() }
    }

    /// Ends one use of the file by a process.
    pub(super) fn let_go(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }

    /// Returns what a read of the page cache, or a direct read, sees.
    pub(super) fn shown(&self, page: u64, direct: bool) -> Arc<Page> {
        match self.cached.get(&page) {
            Some(cached) if cached.direct || !direct => Arc::clone(&cached.page),
            _ => self.view.page(page),
        }
    }

    /// Returns the whole file as the page cache shows it.
    pub(super) fn shown_bytes(&self) -> Vec<u8> {
        let mut content = self.view.clone();
        for (index, cached) in &self.cached {
            content.put(*index, Arc::clone(&cached.page));
        }
        content.bytes()
    }

    /// Copies what is at `position` into `buffer`; returns how many bytes the file had there.
    pub(super) fn read(&self, position: u64, buffer: &mut [u8], direct: bool) -> usize {
        let left = narrow(self.view.length().saturating_sub(position));
        let count = left.min(buffer.len());
        let first = position / page_bytes();
        for (slot, chunk) in (first..).zip(buffer[..count].chunks_mut(BLOCK_BYTES)) {
            chunk.copy_from_slice(&self.shown(slot, direct)[..chunk.len()]);
        }
        count
    }

    /// Returns whether one of the pages cannot be read; behind the end of the file there are none.
    pub(super) fn is_bad(&self, first: u64, end: u64) -> bool {
        first < end && self.bad.range(first..end).next().is_some()
    }

    /// Makes pages unreadable until they are rewritten.
    pub(super) fn mark_bad(&mut self, first: u64, end: u64) {
        self.bad.extend(first..end);
    }

    /// Puts a page where every reader sees it.
    fn show(&mut self, index: u64, page: Arc<Page>) {
        self.view.put(index, page);
        self.cached.remove(&index);
        self.bad.remove(&index);
        self.stale.remove(&index);
    }

    fn grow(&mut self, operation: u64, to: u64) {
        if to > self.view.length() {
            self.view.grow(to);
            let change = Change::Grow { to };
            self.pending.push(Pending { origin: Origin::of(operation), change });
        }
    }

    /// Takes an earlier part of an operation out of the pending changes: all of it comes now.
    pub(super) fn forget(&mut self, operation: u64) {
        self.pending.retain(|pending| pending.origin.operation != operation);
    }

    /// Writes pages, where there are any.
    pub(super) fn write(&mut self, operation: u64, first: u64, pages: &[Option<Arc<Page>>]) {
        let end = first + wide(pages.len());
        self.grow(operation, end * page_bytes());
        for (index, page) in (first..).zip(pages) {
            if let Some(page) = page {
                self.show(index, Arc::clone(page));
                self.space.insert(index, index + 1);
            }
        }
        let change = Change::Write { first, pages: pages.into() };
        self.pending.push(Pending { origin: Origin::of(operation), change });
    }

    /// Returns `pages` where the sectors chosen are new and the others as they are now.
    pub(super) fn mixed(
        &self,
        first: u64,
        pages: &[Arc<Page>],
        mut chosen: impl FnMut(u64) -> bool,
    ) -> Vec<Option<Arc<Page>>> {
        let mut sector = 0;
        let mut mixed = Vec::with_capacity(pages.len());
        for (index, page) in (first..).zip(pages) {
            let fates: [bool; SECTORS] = std::array::from_fn(|_| {
                sector += 1;
                chosen(sector - 1)
            });
            mixed.push(if fates.iter().all(|new| *new) {
                Some(Arc::clone(page))
            } else if fates.iter().any(|new| *new) {
                let mut old = self.view.page(index);
                for (sector, new) in fates.iter().enumerate() {
                    if *new {
                        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                        Arc::make_mut(&mut old)[range.clone()].copy_from_slice(&page[range]);
                    }
                }
                Some(old)
            } else {
                None
            });
        }
        mixed
    }

    /// Shows pages that the media will never hold; the length grows as if it did.
    pub(super) fn write_lost(&mut self, operation: u64, first: u64, pages: &[Arc<Page>]) {
        self.grow(operation, (first + wide(pages.len())) * page_bytes());
        for (index, page) in (first..).zip(pages) {
            self.cached.insert(index, Cached { page: Arc::clone(page), direct: true });
            self.space.insert(index, index + 1);
        }
    }

    /// Lets the page show its present bytes again after the next restart, unless rewritten.
    pub(super) fn mark_stale(&mut self, page: u64, bytes: Arc<Page>) {
        self.stale.insert(page, bytes);
    }

    pub(super) fn set_length(&mut self, operation: u64, to: u64) {
        let change = Change::Set { to };
        self.pending.push(Pending { origin: Origin::of(operation), change });
        self.view.set_length(to);
        drop(self.cached.split_off(&(to / page_bytes())));
        drop(self.stale.split_off(&(to / page_bytes())));
        drop(self.bad.split_off(&to.div_ceil(page_bytes())));
        self.space.cut(to.div_ceil(page_bytes()));
    }

    pub(super) fn allocate(&mut self, operation: u64, first: u64, end: u64, to: u64) {
        self.space.insert(first, end);
        self.grow(operation, to);
    }

    /// Moves the changes `covered` says to the media.
    pub(super) fn pin(&mut self, covered: impl Fn(&Origin) -> bool) {
        let Some(last) = self.pending.iter().rposition(|pending| covered(&pending.origin)) else {
            return;
        };
        let mut rest: Vec<Pending> = Vec::new();
        for (index, pending) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            // A file system orders the lengths of one file: what is written after a cut is not
            // found without the cut.
            let cut_before = index < last && matches!(pending.change, Change::Set { .. });
            if covered(&pending.origin) || cut_before {
                rest.retain_mut(|earlier| supersede(&mut earlier.change, &pending.change));
                apply(&mut self.media, &pending.change);
            } else {
                rest.push(pending);
            }
        }
        self.pending = rest;
    }

    /// Marks pages of covered writes as never reaching the media, as a failed flush does: the
    /// page cache goes on showing them. Returns how many.
    pub(super) fn doom(
        &mut self,
        covered: impl Fn(&Origin) -> bool,
        mut chosen: impl FnMut() -> bool,
    ) -> u64 {
        let mut doomed = BTreeSet::new();
        for pending in &mut self.pending {
            let Change::Write { first, pages } = &mut pending.change else { continue };
            if !covered(&pending.origin) {
                continue;
            }
            for (index, page) in (*first..).zip(Arc::make_mut(pages)) {
                if page.is_some() && chosen() {
                    *page = None;
                    doomed.insert(index);
                }
            }
        }
        for index in &doomed {
            let page = self.shown(*index, false);
            self.view.put(*index, self.rebuilt(*index));
            self.cached.insert(*index, Cached { page, direct: false });
        }
        self.pending.retain(|pending| !is_empty(&pending.change));
        wide(doomed.len())
    }

    /// Returns what media and pending changes make of a page.
    fn rebuilt(&self, index: u64) -> Arc<Page> {
        let mut page = self.media.page(index);
        for pending in &self.pending {
            match &pending.change {
                Change::Write { first, pages } => {
                    let slot = index.checked_sub(*first).map(narrow);
                    if let Some(Some(new)) = slot.and_then(|slot| pages.get(slot)) {
                        page = Arc::clone(new);
                    }
                }
                Change::Set { to } => page = cut_page(index, page, *to),
                Change::Grow { .. } => {}
            }
        }
        page
    }

    /// Returns whether the media holds what the page shows.
    pub(super) fn is_clean(&self, page: u64) -> bool {
        let pending = self.pending.iter().any(|pending| match &pending.change {
            Change::Write { first, pages } => (*first..*first + wide(pages.len())).contains(&page),
            Change::Grow { .. } | Change::Set { .. } => false,
        });
        !pending && !self.cached.contains_key(&page)
    }

    /// Changes bytes of a page wherever it is kept: media, cache and pending writes.
    pub(super) fn damage(&mut self, index: u64, harm: impl Fn(&mut Page)) {
        let harmed = |mut page: Arc<Page>| {
            harm(Arc::make_mut(&mut page));
            page
        };
        if index * page_bytes() < self.media.length() {
            self.media.put(index, harmed(self.media.page(index)));
        }
        self.view.put(index, harmed(self.view.page(index)));
        if let Some(cached) = self.cached.get_mut(&index) {
            harm(Arc::make_mut(&mut cached.page));
        }
        for pending in &mut self.pending {
            if let Change::Write { first, pages } = &mut pending.change
                && let Some(slot) = index.checked_sub(*first).map(narrow)
                && let Some(Some(page)) = Arc::make_mut(pages).get_mut(slot)
            {
                harm(Arc::make_mut(page));
            }
        }
    }

    /// Forgets cached pages that the media does not hold.
    pub(super) fn drop_cache(&mut self) {
        self.cached.clear();
    }

    /// Shows stale blocks, as a restart does. Returns how many.
    pub(super) fn restart(&mut self) -> u64 {
        self.drop_cache();
        let stale = std::mem::take(&mut self.stale);
        for (index, page) in &stale {
            if index * page_bytes() < self.media.length() {
                self.media.put(*index, Arc::clone(page));
                self.view.put(*index, self.rebuilt(*index));
            }
        }
        wide(stale.len())
    }

    /// Ends a power cut: `decide` says what survives of each pending change, in order.
    pub(super) fn survive(&mut self, mut decide: impl FnMut(&Pending) -> ChangeFate) {
        for pending in std::mem::take(&mut self.pending) {
            match decide(&pending) {
                ChangeFate::Lost => {}
                ChangeFate::Kept => match pending.change {
                    // A size may be lost without its data, so data does not bring its size.
                    Change::Write { first, pages } => {
                        for (index, page) in (first..).zip(pages.iter()) {
                            if let Some(page) = page {
                                self.media.put(index, Arc::clone(page));
                            }
                        }
                    }
                    change => apply(&mut self.media, &change),
                },
                ChangeFate::Sectors(mut fate) => {
                    if let Change::Write { first, pages } = pending.change {
                        survive_sectors(&mut self.media, first, &pages, &mut fate);
                    }
                }
            }
        }
        self.media.trim();
        let (seen, kept) = (self.view.length(), self.media.length());
        self.view = self.media.clone();
        self.space.cut(kept.div_ceil(page_bytes()));
        // A cut that did not survive gives its blocks back to the file.
        self.space.insert(seen.div_ceil(page_bytes()), kept.div_ceil(page_bytes()));
        self.handles = 0;
        self.drop_cache();
    }
}

fn survive_sectors(
    media: &mut Content,
    first: u64,
    pages: &[Option<Arc<Page>>],
    fate: &mut dyn FnMut(u64) -> SectorFate,
) {
    let mut number = 0;
    for (index, new) in (first..).zip(pages) {
        let fates: [SectorFate; SECTORS] = std::array::from_fn(|_| {
            number += 1;
            fate(number - 1)
        });
        let Some(new) = new else { continue };
        if fates.iter().all(|fate| *fate == SectorFate::New) {
            media.put(index, Arc::clone(new));
        } else if fates.iter().any(|fate| *fate != SectorFate::Old) {
            let mut page = media.page(index);
            mix(Arc::make_mut(&mut page), new, &fates);
            media.put(index, page);
        }
    }
}

fn mix(page: &mut Page, new: &Page, fates: &[SectorFate; SECTORS]) {
    for (sector, fate) in fates.iter().enumerate() {
        let start = sector * SECTOR_BYTES;
        let (end, garbage) = match *fate {
            SectorFate::Old => continue,
            SectorFate::New => (start + SECTOR_BYTES, None),
            SectorFate::Torn { bytes, garbage } => (start + bytes.min(SECTOR_BYTES), garbage),
        };
        page[start..end].copy_from_slice(&new[start..end]);
        if let Some(byte) = garbage {
            page[end..start + SECTOR_BYTES].fill(byte);
        }
    }
}

/// Applies a change to the media, with the size that finds it.
fn apply(media: &mut Content, change: &Change) {
    match change {
        Change::Write { first, pages } => {
            for (index, page) in (*first..).zip(pages.iter()) {
                if let Some(page) = page {
                    media.put(index, Arc::clone(page));
                    media.grow((index + 1) * page_bytes());
                }
            }
        }
        Change::Grow { to } => media.grow(*to),
        Change::Set { to } => media.set_length(*to),
    }
}

fn cut_page(index: u64, page: Arc<Page>, to: u64) -> Arc<Page> {
    let left = narrow(to.saturating_sub(index * page_bytes()).min(page_bytes()));
    if left == BLOCK_BYTES {
        return page;
    }
    if left == 0 {
        return zero_page();
    }
    let mut page = page;
    Arc::make_mut(&mut page)[left..].fill(0);
    page
}

fn is_empty(change: &Change) -> bool {
    matches!(change, Change::Write { pages, .. } if pages.iter().all(Option::is_none))
}

/// Takes out of `earlier` what `pinned`, which took effect after it, put in its place on the
/// media; returns whether something is left.
fn supersede(earlier: &mut Change, pinned: &Change) -> bool {
    match (&mut *earlier, pinned) {
        (Change::Write { first, pages }, Change::Write { first: from, pages: over }) => {
            for (index, page) in (*first..).zip(Arc::make_mut(pages)) {
                let slot = index.checked_sub(*from).map(narrow);
                if let Some(Some(_)) = slot.and_then(|slot| over.get(slot)) {
                    *page = None;
                }
            }
        }
        (Change::Write { first, pages }, Change::Set { to }) => {
            for (index, page) in (*first..).zip(Arc::make_mut(pages)) {
                *page = match page.take() {
                    Some(page) if index * page_bytes() < *to => Some(cut_page(index, page, *to)),
                    _ => None,
                };
            }
        }
        (Change::Grow { .. } | Change::Set { .. }, Change::Set { .. }) => return false,
        (_, Change::Grow { .. }) | (Change::Grow { .. } | Change::Set { .. }, _) => {}
    }
    !is_empty(earlier)
}
