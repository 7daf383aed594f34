//! The texts of error replies.

/// Whether these are the details of an error reply of Redis, which begins with an upper-case word.
pub(in crate::queue) fn is_reply(details: &str) -> bool {
    let word = without_script(details).split(' ').next().unwrap_or_default();
    word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())
        || is_denied_to_script(details)
}

/// The error without the prefix by which Redis 6 marks one of a script:
/// `ERR Error running script (call to f_…): @user_script:108: @user_script: 108: -READONLY You …` if
/// it was raised, and `@user_script: 108: -READONLY You …` if the script has returned it.
pub(in crate::queue) fn without_script(details: &str) -> &str {
    if details.starts_with("ERR Error running script") {
        return details.rsplit_once(": -").map_or(details, |(_, error)| error);
    }
    let returned = details.strip_prefix("@user_script: ");
    let error = returned.and_then(|rest| rest.split_once(": ")).map(|(_, error)| error);
    error.map_or(details, |error| error.strip_prefix('-').unwrap_or(error))
}

/// Whether the script has called a command that its user may not use.
pub(in crate::queue) fn is_denied_to_script(details: &str) -> bool {
    // The second is that of Redis 7.2 and later, and of Valkey.
    ["The user executing the script can't", "ACL failure in script:"]
        .iter()
        .any(|denial| details.contains(denial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_script_is_found_after_its_prefix() {
        let raised =
            "ERR Error running script (call to f_5b): @user_script:108: @user_script: 108: -";
        for (details, expected) in [
            ("OOM command not allowed", "OOM command not allowed"),
            (
                &*format!("{raised}READONLY You can't write: so it is"),
                "READONLY You can't write: so it is",
            ),
            ("@user_script: 141: -OOM command not allowed", "OOM command not allowed"),
            ("@user_script: 141: WRONGTYPE Operation", "WRONGTYPE Operation"),
        ] {
            assert_eq!(without_script(details), expected);
            assert!(is_reply(details), "{details}");
        }
        assert!(is_reply("@user_script: 9: The user executing the script can't run this command"));
        assert!(!is_reply("connection closed"));
    }
}
