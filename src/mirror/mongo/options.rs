//! The options of an address of MongoDB, as MongoDB's drivers read them, Node's above all.

/// What is done with a given option.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OptionUse {
    /// The driver gets it in this form.
    Keep(String),
    /// The driver does not get it. A warning says so where its absence may matter.
    Ignore(Option<String>),
    /// The address is refused with this fault.
    Refuse(String),
}

/// How an option of the table is treated.
#[derive(Debug, Clone, Copy)]
enum OptionKind {
    /// Kept as it is.
    Verbatim,
    /// Kept if it is true or false.
    Flag,
    /// Kept if it is a whole number. Ignored below this bound, with which the driver cannot work.
    Number(u64),
    /// Kept with `mongodb+srv`, refused otherwise.
    Srv,
    /// A flag that must not be true with `mongodb+srv`.
    DirectConnection,
    Compressors,
    CompressionLevel,
    AuthMechanism,
    AppName,
    /// Ignored without a warning: it switches off something that is never done.
    Redundant,
    /// Ignored without a warning: it concerns writes, and many addresses have it.
    Writes,
    /// Ignored with a warning that says what holds instead.
    Tuning(&'static str),
    /// Refused unless it is false.
    Unsafe,
    /// Refused.
    Unsupported,
}

// What holds instead of an ignored option.
const OWN_LIMITS: &str = "Hookgate has its own time limits";
const FROM_PRIMARY: &str = "Hookgate reads majority-committed data from the primary";
const NO_EFFECT: &str = "it has no effect here";

/// Every option that is known.
const OPTIONS: &[(&str, OptionKind)] = &[
    ("replicaSet", OptionKind::Verbatim),
    ("authSource", OptionKind::Verbatim),
    ("authMechanism", OptionKind::AuthMechanism),
    ("authMechanismProperties", OptionKind::Verbatim),
    ("tls", OptionKind::Flag),
    ("ssl", OptionKind::Flag),
    ("tlsCAFile", OptionKind::Verbatim),
    ("tlsCertificateKeyFile", OptionKind::Verbatim),
    ("tlsInsecure", OptionKind::Flag),
    ("tlsAllowInvalidCertificates", OptionKind::Flag),
    ("directConnection", OptionKind::DirectConnection),
    ("loadBalanced", OptionKind::Flag),
    ("srvServiceName", OptionKind::Srv),
    ("srvMaxHosts", OptionKind::Srv),
    ("appName", OptionKind::AppName),
    ("connectTimeoutMS", OptionKind::Number(0)),
    ("serverSelectionTimeoutMS", OptionKind::Number(1)),
    ("heartbeatFrequencyMS", OptionKind::Number(500)),
    ("maxIdleTimeMS", OptionKind::Number(0)),
    ("maxPoolSize", OptionKind::Number(1)),
    ("minPoolSize", OptionKind::Number(0)),
    ("maxConnecting", OptionKind::Number(1)),
    ("retryReads", OptionKind::Flag),
    ("serverMonitoringMode", OptionKind::Verbatim),
    ("compressors", OptionKind::Compressors),
    ("zlibCompressionLevel", OptionKind::CompressionLevel),
    // Writes.
    ("w", OptionKind::Writes),
    ("j", OptionKind::Writes),
    ("journal", OptionKind::Writes),
    ("fsync", OptionKind::Writes),
    ("safe", OptionKind::Writes),
    ("wTimeoutMS", OptionKind::Writes),
    ("wtimeout", OptionKind::Writes),
    ("retryWrites", OptionKind::Writes),
    // Limits, intervals and sizes.
    ("socketTimeoutMS", OptionKind::Tuning(OWN_LIMITS)),
    ("timeoutMS", OptionKind::Tuning(OWN_LIMITS)),
    ("waitQueueTimeoutMS", OptionKind::Tuning(OWN_LIMITS)),
    ("waitQueueMultiple", OptionKind::Tuning(OWN_LIMITS)),
    ("minHeartbeatFrequencyMS", OptionKind::Tuning(NO_EFFECT)),
    ("poolSize", OptionKind::Tuning(NO_EFFECT)),
    ("keepAlive", OptionKind::Tuning(NO_EFFECT)),
    ("keepAliveInitialDelay", OptionKind::Tuning(NO_EFFECT)),
    ("noDelay", OptionKind::Tuning(NO_EFFECT)),
    ("family", OptionKind::Tuning(NO_EFFECT)),
    ("autoSelectFamily", OptionKind::Tuning(NO_EFFECT)),
    ("autoSelectFamilyAttemptTimeout", OptionKind::Tuning(NO_EFFECT)),
    ("autoReconnect", OptionKind::Tuning(NO_EFFECT)),
    ("reconnectTries", OptionKind::Tuning(NO_EFFECT)),
    ("reconnectInterval", OptionKind::Tuning(NO_EFFECT)),
    ("adaptiveRetries", OptionKind::Tuning(NO_EFFECT)),
    ("maxAdaptiveRetries", OptionKind::Tuning(NO_EFFECT)),
    ("enableOverloadRetargeting", OptionKind::Tuning(NO_EFFECT)),
    // The server that is read from.
    ("readPreference", OptionKind::Tuning(FROM_PRIMARY)),
    ("readPreferenceTags", OptionKind::Tuning(FROM_PRIMARY)),
    ("maxStalenessSeconds", OptionKind::Tuning(FROM_PRIMARY)),
    ("localThresholdMS", OptionKind::Tuning(FROM_PRIMARY)),
    ("slaveOk", OptionKind::Tuning(FROM_PRIMARY)),
    ("readConcernLevel", OptionKind::Tuning(FROM_PRIMARY)),
    // Encoding of documents, logs, and options of older drivers.
    ("uuidRepresentation", OptionKind::Tuning(NO_EFFECT)),
    ("useNewUrlParser", OptionKind::Tuning(NO_EFFECT)),
    ("useUnifiedTopology", OptionKind::Tuning(NO_EFFECT)),
    ("useCreateIndex", OptionKind::Tuning(NO_EFFECT)),
    ("useFindAndModify", OptionKind::Tuning(NO_EFFECT)),
    ("useRecoveryToken", OptionKind::Tuning(NO_EFFECT)),
    ("useBigInt64", OptionKind::Tuning(NO_EFFECT)),
    ("promoteBuffers", OptionKind::Tuning(NO_EFFECT)),
    ("promoteLongs", OptionKind::Tuning(NO_EFFECT)),
    ("promoteValues", OptionKind::Tuning(NO_EFFECT)),
    ("bsonRegExp", OptionKind::Tuning(NO_EFFECT)),
    ("raw", OptionKind::Tuning(NO_EFFECT)),
    ("ignoreUndefined", OptionKind::Tuning(NO_EFFECT)),
    ("serializeFunctions", OptionKind::Tuning(NO_EFFECT)),
    ("checkKeys", OptionKind::Tuning(NO_EFFECT)),
    ("enableUtf8Validation", OptionKind::Tuning(NO_EFFECT)),
    ("forceServerObjectId", OptionKind::Tuning(NO_EFFECT)),
    ("monitorCommands", OptionKind::Tuning(NO_EFFECT)),
    ("loggerLevel", OptionKind::Tuning(NO_EFFECT)),
    // Revocation is never checked, so there is nothing to switch off.
    ("tlsDisableOCSPEndpointCheck", OptionKind::Redundant),
    ("tlsDisableCertificateRevocationCheck", OptionKind::Redundant),
    ("tlsAllowInvalidHostnames", OptionKind::Unsafe),
    // Without these the connection fails, or is less secure than it should be.
    ("tlsCertificateKeyFilePassword", OptionKind::Unsupported),
    ("tlsCertificateFile", OptionKind::Unsupported),
    ("tlsCRLFile", OptionKind::Unsupported),
    ("proxyHost", OptionKind::Unsupported),
    ("proxyPort", OptionKind::Unsupported),
    ("proxyUsername", OptionKind::Unsupported),
    ("proxyPassword", OptionKind::Unsupported),
    ("gssapiServiceName", OptionKind::Unsupported),
    ("autoEncryption", OptionKind::Unsupported),
];

/// In bytes. MongoDB refuses connections with a longer name.
pub(super) const LONGEST_APP_NAME: usize = 128;

/// The compressors that the driver supports.
const COMPRESSORS: [&str; 3] = ["snappy", "zlib", "zstd"];

/// Reads the options of an address.
pub(super) fn read(options: &str, is_srv: bool) -> impl Iterator<Item = OptionUse> {
    let compresses = compresses_with_zlib(options);
    let given = options.split('&').filter(|option| !option.is_empty());
    given.map(move |option| read_one(option, is_srv, compresses))
}

fn compresses_with_zlib(options: &str) -> bool {
    let mut options = options.split('&').filter_map(|option| option.split_once('='));
    options.any(|(name, value)| name.eq_ignore_ascii_case("compressors") && value.contains("zlib"))
}

fn read_one(option: &str, is_srv: bool, compresses_with_zlib: bool) -> OptionUse {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let Some((name, kind)) = OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
    else {
        return OptionUse::Refuse(unknown(name));
    };
    let keep = || OptionUse::Keep(format!("{name}={value}"));
    let ignore = |instead: &str| OptionUse::Ignore(Some(format!("{name} is ignored: {instead}")));
    let refuse = |why: &str| OptionUse::Refuse(format!("{name} {why}"));
    match kind {
        OptionKind::Tuning(instead) => ignore(instead),
        OptionKind::Redundant | OptionKind::Writes => OptionUse::Ignore(None),
        OptionKind::Unsupported => refuse("is not supported"),
        _ if value.is_empty() => refuse("has no value"),
        OptionKind::Srv if !is_srv => refuse("needs mongodb+srv://"),
        OptionKind::DirectConnection if is_srv && flag(value) == Some(true) => {
            refuse("cannot be combined with mongodb+srv://")
        }
        OptionKind::Unsafe if flag(value) == Some(false) => OptionUse::Ignore(None),
        OptionKind::Unsafe => refuse("is not supported: names are always checked"),
        OptionKind::Flag | OptionKind::DirectConnection => match flag(value) {
            Some(value) => OptionUse::Keep(format!("{name}={value}")),
            None => refuse("is neither true nor false"),
        },
        OptionKind::Number(least) => match value.parse::<u64>() {
            Ok(number) if number < *least => ignore(&format!("it must be at least {least}")),
            Ok(_) if value.parse::<u32>().is_ok() => keep(),
            _ => refuse("is not a whole number, or is too large"),
        },
        OptionKind::AppName if value.len() > LONGEST_APP_NAME && is_too_long(value) => {
            OptionUse::Ignore(Some(format!(
                "{name} is ignored: it is longer than {LONGEST_APP_NAME} bytes"
            )))
        }
        OptionKind::Verbatim | OptionKind::Srv | OptionKind::AppName => keep(),
        OptionKind::AuthMechanism => match value {
            // The driver accepts these and then fails every connection.
            "MONGODB-OIDC" | "MONGODB-CR" => refuse(&format!("{value} is not supported")),
            _ => keep(),
        },
        OptionKind::Compressors => compressors(name, value),
        OptionKind::CompressionLevel => match value.parse::<i32>() {
            Ok(-1..=9) if compresses_with_zlib => keep(),
            Ok(_) if compresses_with_zlib => ignore("it must be from -1 to 9"),
            _ => ignore("zlib is not among the compressors"),
        },
    }
}

/// The fault of an unknown option. The name is repeated only if it looks like one, because it may
/// be part of a password.
fn unknown(name: &str) -> String {
    let is_name = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_name && !name.is_empty() {
        format!("has an unknown option: {name}")
    } else {
        "has an unknown option".to_owned()
    }
}

/// A flag as Node's driver reads it.
fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" | "-1" => Some(false),
        _ => None,
    }
}

/// Whether a name is too long once it is percent-decoded: `%` and two digits are one byte.
fn is_too_long(value: &str) -> bool {
    value.len() - 2 * value.matches('%').count().min(value.len() / 3) > LONGEST_APP_NAME
}

fn compressors(name: &str, value: &str) -> OptionUse {
    let value = value.replace("%2C", ",").replace("%2c", ",");
    let (known, others): (Vec<&str>, Vec<&str>) = value
        .split(',')
        .filter(|each| !each.is_empty() && *each != "none")
        .partition(|each| COMPRESSORS.contains(each));
    match (known.is_empty(), others.is_empty()) {
        (true, true) => OptionUse::Ignore(None),
        (true, false) => OptionUse::Ignore(Some(format!(
            "{name} is ignored: Hookgate supports {}",
            COMPRESSORS.join(", ")
        ))),
        (false, _) => OptionUse::Keep(format!("{name}={}", known.join(","))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_alone(option: &str) -> OptionUse {
        let mut read = read(option, false);
        read.next().unwrap()
    }

    #[test]
    fn every_option_is_once_in_the_table() {
        let mut names: Vec<String> =
            OPTIONS.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn tuning_options_are_ignored_with_a_warning_that_names_them() {
        for option in [
            "timeoutMS=1",
            "MaxStalenessSeconds=90",
            "uuidRepresentation=standard",
            "maxPoolSize=0",
            "maxConnecting=0",
            "heartbeatFrequencyMS=100",
            "serverSelectionTimeoutMS=0",
            "compressors=lzma",
            "zlibCompressionLevel=3",
            "useNewUrlParser=",
        ] {
            let OptionUse::Ignore(Some(warning)) = read_alone(option) else { panic!("{option}") };
            let (name, _) = option.split_once('=').unwrap();
            assert!(warning.to_lowercase().starts_with(&name.to_lowercase()), "{warning}");
        }
        let long = read_alone(&format!("appName={}", "x".repeat(129)));
        assert!(matches!(long, OptionUse::Ignore(Some(_))), "{long:?}");
    }

    #[test]
    fn kept_options_have_the_form_that_the_driver_reads() {
        for (given, kept) in [
            ("RETRYREADS=Yes", "retryReads=true"),
            ("tls=0", "tls=false"),
            ("compressors=lzma,zstd,none,zlib", "compressors=zstd,zlib"),
            ("appName=%C3%A4", "appName=%C3%A4"),
            ("maxPoolSize=5", "maxPoolSize=5"),
        ] {
            assert_eq!(read_alone(given), OptionUse::Keep(kept.to_owned()));
        }
        let level: Vec<OptionUse> =
            read("compressors=zlib&zlibCompressionLevel=9", false).collect();
        assert_eq!(level.get(1), Some(&OptionUse::Keep("zlibCompressionLevel=9".to_owned())));
    }

    #[test]
    fn refused_options_are_named() {
        for option in [
            "replicaSt=a",
            "proxyHost=a",
            "tlsAllowInvalidHostnames=true",
            "tls=perhaps",
            "maxPoolSize=many",
            "replicaSet=",
            "replicaSet",
            "srvMaxHosts=1",
            "authMechanism=MONGODB-OIDC",
        ] {
            let name = option.split('=').next().unwrap_or_default();
            let OptionUse::Refuse(fault) = read_alone(option) else { panic!("{option}") };
            assert!(fault.contains(name), "{fault}");
        }
        assert_eq!(read_alone("a/b@c=d"), OptionUse::Refuse("has an unknown option".to_owned()));
    }
}
