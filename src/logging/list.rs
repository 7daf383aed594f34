//! A list as one field of a log line.

use std::error::Error;
use std::fmt;

/// Strings as one field of a log line: an array in JSON. It implements [`Error`], because an error
/// is the only kind of value that `tracing` passes to a formatter with its type.
#[derive(Debug)]
pub struct List(pub Vec<String>);

impl List {
    /// The value to pass to a `tracing` macro.
    pub fn as_value(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl fmt::Display for List {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

impl Error for List {}
