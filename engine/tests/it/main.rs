//! The engine through its public API, on real files.

mod ahead;
mod basics;
mod compression;
mod conformance;
mod follow;
mod gone;
mod index;
mod interleaved;
mod last_handle;
mod local;
mod metrics;
mod mode;
mod outside;
mod producers;
mod room;
mod rounds;
mod shards;
mod stages;
mod tail;
mod trim;
mod unfinished;
mod watch;
