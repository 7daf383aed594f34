//! JSON as callers send it: whether it is valid, and where it is not.

mod depth;
mod invalid_json;
mod media_type;
mod parser;

pub use crate::json::depth::is_too_deep;
pub use crate::json::invalid_json::{InvalidJson, InvalidJsonKind, MAX_DEPTH};
pub use crate::json::media_type::is_json;
pub use crate::json::parser::{Parsed, parse, validate};
