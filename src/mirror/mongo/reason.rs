//! The reason of a driver's error in a few words. Equal errors have equal reasons.

use crate::files::tls_roots;
use mongodb::error::{Error, ErrorKind};
use std::io;

/// The reason of an error, without the internals that the driver prints.
pub(super) fn reason(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::Io(error) => io_reason(error),
        ErrorKind::DnsResolve { message, .. } => {
            format!("the name is not found: {}", without_query(message))
        }
        ErrorKind::ConnectionPoolCleared { message, .. } => nested_reason(message),
        kind => without_command(&kind.to_string()).to_owned(),
    }
}

/// Removes the debug output of the resolver: `no records found for Query { name: …`.
fn without_query(message: &str) -> &str {
    message.split(" for Query {").next().unwrap_or(message)
}

/// Removes the refused command, which MongoDB repeats with its timestamps and signatures.
fn without_command(message: &str) -> &str {
    message.split(" to execute command").next().unwrap_or(message)
}

/// The reason of an error whose message contains another error in the driver's debug output:
/// `… failed with: Kind: I/O error: timed out, labels: {}, …`.
fn nested_reason(message: &str) -> String {
    let (_, nested) = message.split_once("Kind: ").unwrap_or(("", message));
    let nested = nested.split(", labels: ").next().unwrap_or(nested);
    let nested = nested.strip_prefix("I/O error: ").unwrap_or(nested);
    format!("connections were closed after a failure: {}", without_code(without_command(nested)))
}

fn io_reason(error: &io::Error) -> String {
    if let Some(failure) = tls_roots::failure_of(error) {
        return failure;
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
        _ => without_code(&error.to_string()).to_owned(),
    }
}

/// Removes the code from `Connection refused (os error 111)`.
fn without_code(message: &str) -> &str {
    message.split(" (os error").next().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn internals_of_the_driver_are_removed() {
        let timeout = "Connection pool for a:1 cleared because another operation failed with: \
                       Kind: I/O error: timed out, labels: {}, source: None, server response: None";
        assert_eq!(nested_reason(timeout), "connections were closed after a failure: timed out");
        let query = "DNS error: no records found for Query { name: Name(\"a\"), query_type: SRV }";
        assert_eq!(without_query(query), "DNS error: no records found");
        let refused = io::Error::from_raw_os_error(111);
        let refused = Error::from(ErrorKind::Io(Arc::new(refused)));
        assert_eq!(reason(&refused), "Connection refused");
        let command = "not authorized on a to execute command { find: \"b\" }";
        assert_eq!(without_command(command), "not authorized on a");
    }
}
