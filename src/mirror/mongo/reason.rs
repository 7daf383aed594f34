//! What an error of the driver is, for people: without what is for programmers, and never twice different.

use crate::trust;
use mongodb::error::{Error, ErrorKind};
use std::io;

/// Says what has gone wrong.
pub(super) fn reason(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::Io(error) => of_io(error),
        ErrorKind::DnsResolve { message, .. } => {
            format!("the name is not found: {}", without_query(message))
        }
        ErrorKind::ConnectionPoolCleared { message, .. } => of_nested(message),
        kind => without_command(&kind.to_string()).to_owned(),
    }
}

/// The resolver writes the question as it does for programmers: `no records found for Query { name: …`.
fn without_query(message: &str) -> &str {
    message.split(" for Query {").next().unwrap_or(message)
}

/// MongoDB repeats the command that it refuses, with its times and signatures: never twice the same.
fn without_command(message: &str) -> &str {
    message.split(" to execute command").next().unwrap_or(message)
}

/// The driver writes an error within an error as it does for programmers: `… failed with: Kind: I/O error: timed out, labels: {}, …`.
fn of_nested(message: &str) -> String {
    let (_, nested) = message.split_once("Kind: ").unwrap_or(("", message));
    let nested = nested.split(", labels: ").next().unwrap_or(nested);
    let nested = nested.strip_prefix("I/O error: ").unwrap_or(nested);
    format!("connections were closed after a failure: {}", without_code(without_command(nested)))
}

fn of_io(error: &io::Error) -> String {
    if let Some(failure) = trust::failure_of(error) {
        return failure;
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
        _ => without_code(&error.to_string()).to_owned(),
    }
}

/// `Connection refused (os error 111)` without what is in brackets.
fn without_code(message: &str) -> &str {
    message.split(" (os error").next().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_for_programmers_is_left_out() {
        let timeout = "Connection pool for a:1 cleared because another operation failed with: \
                       Kind: I/O error: timed out, labels: {}, source: None, server response: None";
        assert_eq!(of_nested(timeout), "connections were closed after a failure: timed out");
        let query = "DNS error: no records found for Query { name: Name(\"a\"), query_type: SRV }";
        assert_eq!(without_query(query), "DNS error: no records found");
        let refused = io::Error::from_raw_os_error(111);
        let refused = Error::from(ErrorKind::Io(Arc::new(refused)));
        assert_eq!(reason(&refused), "Connection refused");
        let command = "not authorized on a to execute command { find: \"b\" }";
        assert_eq!(without_command(command), "not authorized on a");
    }
}
