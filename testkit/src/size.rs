//! The size of a test: small by default, larger by environment variables.

use std::str::FromStr;

/// A number from an environment variable.
pub fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    let text = std::env::vars_os().find(|(key, _)| key == name);
    text.map_or(default, |(_, text)| {
        let number = text.to_str().and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| panic!("{name} is not a number"))
    })
}
