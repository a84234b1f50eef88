//! What the two halves of `make instructions` agree on: the example `decide`, and the program that
//! runs it and divides.

/// How many decisions each row makes.
pub const DECISIONS: u64 = 2000;

/// The same for a row of an odd shape, each of which costs a thousand times as much.
pub const SHAPED_DECISIONS: u64 = 20;
