//! The simulated disk keeps its model: what it promises to hold it holds, and what it may lose it
//! does lose for some seed.

mod alone;
mod crashes;
mod damage;
mod determinism;
mod durability;
mod enumeration;
mod harness;
mod like_linux;
mod names;
mod oracle;
mod processes;
mod waiting;
