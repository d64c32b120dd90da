//! Collections beside everything that can go on, on several hosts over one target in memory.

mod cost;
mod crash;
mod damage;
mod hosts;
mod interleaved;
pub(in crate::ops) mod lab;
mod ordinary;
mod random;
