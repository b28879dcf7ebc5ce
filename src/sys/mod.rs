//! The only unsafe code: one file per kernel mechanism.

pub mod epoll;
pub mod eventfd;
pub mod fifo;
