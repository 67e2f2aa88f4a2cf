//! What every real backend promises, and that all of them keep it alike.

mod alone;
mod differential;
mod harness;
mod locks;
mod names;
mod transfers;
mod waiting;
