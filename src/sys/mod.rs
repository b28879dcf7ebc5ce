<<<<<<< HEAD
//! The only room with `unsafe`: one file a kernel mechanism, each with a safe function or type in front.

pub mod process;
=======
//! The only room with `unsafe`: one kernel mechanism a file, each behind a safe function.

pub mod grpc_deadline;
pub mod lock_file;
pub mod notify;
pub mod reap;
pub mod signal;
pub mod socket;
pub mod thread;
>>>>>>> w-server
