//! What cricket remembers between requests.

pub mod image;
