//! The engine through its public API, on real files.

mod basics;
mod outside;
