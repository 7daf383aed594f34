//! The size of a test: small by default, larger by environment variables.

use std::str::FromStr;

/// A number from an environment variable.
pub fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    given(name).unwrap_or(default)
}

/// A number from an environment variable, if that is set.
pub fn given<T: FromStr>(name: &str) -> Option<T> {
    let (_, text) = std::env::vars_os().find(|(key, _)| key == name)?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    Some(number.unwrap_or_else(|| panic!("{name} is not a number")))
}
