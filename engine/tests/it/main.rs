//! The engine through its public API, on real files.

mod basics;
mod local;
mod outside;
mod stages;
mod trim;
