//! The options of an address of MongoDB, as the drivers of other languages take them, Node's above all.

/// What is made of an option.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The driver is given it, written so.
    Keep(String),
    /// With a warning, where somebody may miss it.
    Ignore(Option<String>),
    Refuse(String),
}

/// How an option is treated.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Passed on.
    Text,
    /// Likewise, true or false.
    Flag,
    /// Likewise, a whole number; the driver cannot work with less than this, which is ignored.
    Number(u64),
    /// Likewise, of `mongodb+srv` only.
    Srv,
    /// Likewise, of `mongodb` only.
    DirectConnection,
    Compressors,
    CompressionLevel,
    AuthMechanism,
    AppName,
    /// It asks for less than is done anyway, or for nothing.
    Nothing,
    /// A reader has no use for it, and it stands in every other address.
    OfWriters,
    /// Ignored; the text says what holds instead.
    Tuning(&'static str),
    /// Refused unless it is false.
    Unsafe,
    Unsupported,
}

/// Of which the driver would make something else, or nothing.
const OWN_LIMITS: &str = "Hookgate has time limits of its own";
const FROM_PRIMARY: &str = "Hookgate reads from the primary, as the majority has it";
const NO_EFFECT: &str = "it has no effect here";

/// Every option that is known.
const OPTIONS: &[(&str, Kind)] = &[
    ("replicaSet", Kind::Text),
    ("authSource", Kind::Text),
    ("authMechanism", Kind::AuthMechanism),
    ("authMechanismProperties", Kind::Text),
    ("tls", Kind::Flag),
    ("ssl", Kind::Flag),
    ("tlsCAFile", Kind::Text),
    ("tlsCertificateKeyFile", Kind::Text),
    ("tlsInsecure", Kind::Flag),
    ("tlsAllowInvalidCertificates", Kind::Flag),
    ("directConnection", Kind::DirectConnection),
    ("loadBalanced", Kind::Flag),
    ("srvServiceName", Kind::Srv),
    ("srvMaxHosts", Kind::Srv),
    ("appName", Kind::AppName),
    ("connectTimeoutMS", Kind::Number(0)),
    ("serverSelectionTimeoutMS", Kind::Number(1)),
    ("heartbeatFrequencyMS", Kind::Number(500)),
    ("maxIdleTimeMS", Kind::Number(0)),
    ("maxPoolSize", Kind::Number(1)),
    ("minPoolSize", Kind::Number(0)),
    ("maxConnecting", Kind::Number(1)),
    ("retryReads", Kind::Flag),
    ("serverMonitoringMode", Kind::Text),
    ("compressors", Kind::Compressors),
    ("zlibCompressionLevel", Kind::CompressionLevel),
    // Of writers.
    ("w", Kind::OfWriters),
    ("j", Kind::OfWriters),
    ("journal", Kind::OfWriters),
    ("fsync", Kind::OfWriters),
    ("safe", Kind::OfWriters),
    ("wTimeoutMS", Kind::OfWriters),
    ("wtimeout", Kind::OfWriters),
    ("retryWrites", Kind::OfWriters),
    // Of how long, how often and by how much.
    ("socketTimeoutMS", Kind::Tuning(OWN_LIMITS)),
    ("timeoutMS", Kind::Tuning(OWN_LIMITS)),
    ("waitQueueTimeoutMS", Kind::Tuning(OWN_LIMITS)),
    ("waitQueueMultiple", Kind::Tuning(OWN_LIMITS)),
    ("minHeartbeatFrequencyMS", Kind::Tuning(NO_EFFECT)),
    ("poolSize", Kind::Tuning(NO_EFFECT)),
    ("keepAlive", Kind::Tuning(NO_EFFECT)),
    ("keepAliveInitialDelay", Kind::Tuning(NO_EFFECT)),
    ("noDelay", Kind::Tuning(NO_EFFECT)),
    ("family", Kind::Tuning(NO_EFFECT)),
    ("autoSelectFamily", Kind::Tuning(NO_EFFECT)),
    ("autoSelectFamilyAttemptTimeout", Kind::Tuning(NO_EFFECT)),
    ("autoReconnect", Kind::Tuning(NO_EFFECT)),
    ("reconnectTries", Kind::Tuning(NO_EFFECT)),
    ("reconnectInterval", Kind::Tuning(NO_EFFECT)),
    ("adaptiveRetries", Kind::Tuning(NO_EFFECT)),
    ("maxAdaptiveRetries", Kind::Tuning(NO_EFFECT)),
    ("enableOverloadRetargeting", Kind::Tuning(NO_EFFECT)),
    // Of where is read from.
    ("readPreference", Kind::Tuning(FROM_PRIMARY)),
    ("readPreferenceTags", Kind::Tuning(FROM_PRIMARY)),
    ("maxStalenessSeconds", Kind::Tuning(FROM_PRIMARY)),
    ("localThresholdMS", Kind::Tuning(FROM_PRIMARY)),
    ("slaveOk", Kind::Tuning(FROM_PRIMARY)),
    ("readConcernLevel", Kind::Tuning(FROM_PRIMARY)),
    // Of what a driver makes of documents, of its log and of its own history.
    ("uuidRepresentation", Kind::Tuning(NO_EFFECT)),
    ("useNewUrlParser", Kind::Tuning(NO_EFFECT)),
    ("useUnifiedTopology", Kind::Tuning(NO_EFFECT)),
    ("useCreateIndex", Kind::Tuning(NO_EFFECT)),
    ("useFindAndModify", Kind::Tuning(NO_EFFECT)),
    ("useRecoveryToken", Kind::Tuning(NO_EFFECT)),
    ("useBigInt64", Kind::Tuning(NO_EFFECT)),
    ("promoteBuffers", Kind::Tuning(NO_EFFECT)),
    ("promoteLongs", Kind::Tuning(NO_EFFECT)),
    ("promoteValues", Kind::Tuning(NO_EFFECT)),
    ("bsonRegExp", Kind::Tuning(NO_EFFECT)),
    ("raw", Kind::Tuning(NO_EFFECT)),
    ("ignoreUndefined", Kind::Tuning(NO_EFFECT)),
    ("serializeFunctions", Kind::Tuning(NO_EFFECT)),
    ("checkKeys", Kind::Tuning(NO_EFFECT)),
    ("enableUtf8Validation", Kind::Tuning(NO_EFFECT)),
    ("forceServerObjectId", Kind::Tuning(NO_EFFECT)),
    ("monitorCommands", Kind::Tuning(NO_EFFECT)),
    ("loggerLevel", Kind::Tuning(NO_EFFECT)),
    // Certificates are not looked up anywhere, so that there is nothing to switch off.
    ("tlsDisableOCSPEndpointCheck", Kind::Nothing),
    ("tlsDisableCertificateRevocationCheck", Kind::Nothing),
    ("tlsAllowInvalidHostnames", Kind::Unsafe),
    // Without these there is no connection, or a less secure one than was asked for.
    ("tlsCertificateKeyFilePassword", Kind::Unsupported),
    ("tlsCertificateFile", Kind::Unsupported),
    ("tlsCRLFile", Kind::Unsupported),
    ("proxyHost", Kind::Unsupported),
    ("proxyPort", Kind::Unsupported),
    ("proxyUsername", Kind::Unsupported),
    ("proxyPassword", Kind::Unsupported),
    ("gssapiServiceName", Kind::Unsupported),
    ("autoEncryption", Kind::Unsupported),
];

/// Longer ones MongoDB refuses when a connection is made.
pub(super) const LONGEST_APP_NAME: usize = 128;

/// What the driver can compress messages with.
const COMPRESSORS: [&str; 3] = ["snappy", "zlib", "zstd"];

/// Reads options, separated as in an address.
pub(super) fn read(options: &str, is_srv: bool) -> impl Iterator<Item = Use> {
    let compresses = compresses_with_zlib(options);
    let given = options.split('&').filter(|option| !option.is_empty());
    given.map(move |option| read_one(option, is_srv, compresses))
}

fn compresses_with_zlib(options: &str) -> bool {
    let mut options = options.split('&').filter_map(|option| option.split_once('='));
    options.any(|(name, value)| name.eq_ignore_ascii_case("compressors") && value.contains("zlib"))
}

fn read_one(option: &str, is_srv: bool, compresses_with_zlib: bool) -> Use {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let Some((name, kind)) = OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
    else {
        return Use::Refuse(unknown(name));
    };
    let keep = || Use::Keep(format!("{name}={value}"));
    let ignore = |instead: &str| Use::Ignore(Some(format!("{name} is ignored: {instead}")));
    let refuse = |why: &str| Use::Refuse(format!("{name} {why}"));
    match kind {
        Kind::Tuning(instead) => ignore(instead),
        Kind::Nothing | Kind::OfWriters => Use::Ignore(None),
        Kind::Unsupported => refuse("is not supported"),
        _ if value.is_empty() => refuse("has no value"),
        Kind::Srv if !is_srv => refuse("belongs to mongodb+srv://"),
        Kind::DirectConnection if is_srv && flag(value) == Some(true) => {
            refuse("does not go with mongodb+srv://")
        }
        Kind::Unsafe if flag(value) == Some(false) => Use::Ignore(None),
        Kind::Unsafe => refuse("is not supported: names are always checked"),
        Kind::Flag | Kind::DirectConnection => match flag(value) {
            Some(value) => Use::Keep(format!("{name}={value}")),
            None => refuse("is neither true nor false"),
        },
        Kind::Number(least) => match value.parse::<u64>() {
            Ok(number) if number < *least => {
                ignore(&format!("it would have to be at least {least}"))
            }
            Ok(_) if value.parse::<u32>().is_ok() => keep(),
            _ => refuse("is no whole number, or too large"),
        },
        Kind::AppName if value.len() > LONGEST_APP_NAME && is_too_long(value) => Use::Ignore(Some(
            format!("{name} is ignored: it is longer than {LONGEST_APP_NAME} bytes"),
        )),
        Kind::Text | Kind::Srv | Kind::AppName => keep(),
        Kind::AuthMechanism => match value {
            // The driver accepts them, and refuses every connection.
            "MONGODB-OIDC" | "MONGODB-CR" => refuse(&format!("{value} is not supported")),
            _ => keep(),
        },
        Kind::Compressors => compressors(name, value),
        Kind::CompressionLevel => match value.parse::<i32>() {
            Ok(-1..=9) if compresses_with_zlib => keep(),
            Ok(_) if compresses_with_zlib => ignore("levels go from -1 to 9"),
            _ => ignore("zlib is not among the compressors"),
        },
    }
}

/// Only a name that can be one is repeated.
fn unknown(name: &str) -> String {
    let is_name = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_name && !name.is_empty() {
        format!("has an option that is not known: {name}")
    } else {
        "has an option that is not known".to_owned()
    }
}

/// As Node's driver reads it.
fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" | "-1" => Some(false),
        _ => None,
    }
}

/// Three bytes that begin with a percent sign are one.
fn is_too_long(value: &str) -> bool {
    value.len() - 2 * value.matches('%').count().min(value.len() / 3) > LONGEST_APP_NAME
}

fn compressors(name: &str, value: &str) -> Use {
    let value = value.replace("%2C", ",").replace("%2c", ",");
    let (known, others): (Vec<&str>, Vec<&str>) = value
        .split(',')
        .filter(|each| !each.is_empty() && *each != "none")
        .partition(|each| COMPRESSORS.contains(each));
    match (known.is_empty(), others.is_empty()) {
        (true, true) => Use::Ignore(None),
        (true, false) => Use::Ignore(Some(format!(
            "{name} is ignored: messages can be compressed by {}",
            COMPRESSORS.join(", ")
        ))),
        (false, _) => Use::Keep(format!("{name}={}", known.join(","))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_alone(option: &str) -> Use {
        let mut read = read(option, false);
        read.next().unwrap()
    }

    #[test]
    fn every_option_stands_once_in_the_table() {
        let mut names: Vec<String> =
            OPTIONS.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_only_tunes_is_ignored_by_name() {
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
            let Use::Ignore(Some(warning)) = read_alone(option) else { panic!("{option}") };
            let (name, _) = option.split_once('=').unwrap();
            assert!(warning.to_lowercase().starts_with(&name.to_lowercase()), "{warning}");
        }
        let long = read_alone(&format!("appName={}", "x".repeat(129)));
        assert!(matches!(long, Use::Ignore(Some(_))), "{long:?}");
    }

    #[test]
    fn what_is_kept_is_written_as_the_driver_takes_it() {
        for (given, kept) in [
            ("RETRYREADS=Yes", "retryReads=true"),
            ("tls=0", "tls=false"),
            ("compressors=lzma,zstd,none,zlib", "compressors=zstd,zlib"),
            ("appName=%C3%A4", "appName=%C3%A4"),
            ("maxPoolSize=5", "maxPoolSize=5"),
        ] {
            assert_eq!(read_alone(given), Use::Keep(kept.to_owned()));
        }
        let level: Vec<Use> = read("compressors=zlib&zlibCompressionLevel=9", false).collect();
        assert_eq!(level.get(1), Some(&Use::Keep("zlibCompressionLevel=9".to_owned())));
    }

    #[test]
    fn what_is_refused_is_named() {
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
            let Use::Refuse(fault) = read_alone(option) else { panic!("{option}") };
            assert!(fault.contains(name), "{fault}");
        }
        assert_eq!(
            read_alone("a/b@c=d"),
            Use::Refuse("has an option that is not known".to_owned())
        );
    }
}
