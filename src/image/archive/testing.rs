//! Archives of every shape, for tests.
