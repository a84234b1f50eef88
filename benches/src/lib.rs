//! What the two halves of `make instructions` agree on: the example `decide`, and the program that
//! runs it and divides.

/// How many decisions each row makes.
pub const DECISIONS: u64 = 2000;
