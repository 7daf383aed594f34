//! The time of a delivery and how far it may be off.

use crate::endpoints::verification::body_path::BodyPath;
use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeFormat {
    Seconds,
    Milliseconds,
    Rfc3339,
}

/// Where the time of a delivery is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TimePlace {
    /// A header field. Several names belong to the header fields of the signature, in order.
    Headers(Vec<String>),
    /// An item of the signature's header field.
    Item(String),
    Body(BodyPath),
}

impl TimePlace {
    /// The name of the place, for refusals.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Headers(names) => names.first().map_or("", String::as_str),
            Self::Item(item) => item,
            Self::Body(path) => path.as_str(),
        }
    }
}

/// What is asked of the time of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeRule {
    pub(super) place: TimePlace,
    pub(super) format: TimeFormat,
    pub(super) tolerance: Duration,
}

impl TimeRule {
    /// Checks a time that was found. `Some` if it is off by more than the tolerance, which is the
    /// reason of a refusal only if the signature is right. `Err` if it cannot be read.
    pub(super) fn check(&self, text: &str, now: SystemTime) -> Result<Option<Refusal>, Refusal> {
        let Some(off_by) = self.off_by(text, now) else {
            return Err(Refusal::with_part(RefusalKind::Malformed, self.place.name()));
        };
        let tolerance = i64::try_from(self.tolerance.as_millis()).unwrap_or(i64::MAX);
        let kind = match off_by {
            _ if off_by > tolerance => RefusalKind::TooEarly,
            _ if off_by < -tolerance => RefusalKind::TooOld,
            _ => return Ok(None),
        };
        Ok(Some(Refusal { off_by: Some(off_by), ..Refusal::with_part(kind, self.place.name()) }))
    }
}

impl TimeRule {
    /// How far a time is off, in milliseconds: positive in the future.
    pub(super) fn off_by(&self, text: &str, now: SystemTime) -> Option<i64> {
        let time = self.format.milliseconds(text)?;
        Some(time.saturating_sub(milliseconds_of(now)))
    }
}

impl TimeFormat {
    /// Milliseconds since 1970.
    fn milliseconds(self, text: &str) -> Option<i64> {
        match self {
            Self::Seconds => digits(text)?.checked_mul(1000),
            Self::Milliseconds => digits(text),
            Self::Rfc3339 => {
                let time = bson::DateTime::parse_rfc3339_str(text).ok()?;
                Some(time.timestamp_millis())
            }
        }
    }
}

/// A number without a sign.
fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Milliseconds since 1970.
pub(super) fn milliseconds_of(time: SystemTime) -> i64 {
    let milliseconds = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(span) => milliseconds(span),
        Err(before) => -milliseconds(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_each_format() {
        for (format, text, expected) in [
            (TimeFormat::Seconds, "1531420618", Some(1_531_420_618_000)),
            (TimeFormat::Seconds, "0", Some(0)),
            (TimeFormat::Seconds, "", None),
            (TimeFormat::Seconds, "+1531420618", None),
            (TimeFormat::Seconds, "-1", None),
            (TimeFormat::Seconds, "1531420618.5", None),
            (TimeFormat::Seconds, "9223372036854775807", None),
            (TimeFormat::Seconds, "99999999999999999999", None),
            (TimeFormat::Milliseconds, "1531420618123", Some(1_531_420_618_123)),
            (TimeFormat::Milliseconds, "9223372036854775807", Some(i64::MAX)),
            (TimeFormat::Rfc3339, "2021-03-25T05:09:27Z", Some(1_616_648_967_000)),
            (TimeFormat::Rfc3339, "2021-03-25T06:09:27.250+01:00", Some(1_616_648_967_250)),
            (TimeFormat::Rfc3339, "2021-03-25", None),
            (TimeFormat::Rfc3339, "1616648967", None),
        ] {
            assert_eq!(format.milliseconds(text), expected, "{format:?} {text}");
        }
    }

    #[test]
    fn the_tolerance_holds_in_both_directions() {
        let place = TimePlace::Item("t".to_owned());
        let tolerance = Duration::from_secs(300);
        let rule = TimeRule { place, format: TimeFormat::Seconds, tolerance };
        let at = |second: u64| UNIX_EPOCH + Duration::from_secs(second);
        assert_eq!(rule.check("1000", at(1300)), Ok(None));
        assert_eq!(rule.check("1000", at(700)), Ok(None));
        let late = rule.check("1000", at(1301)).unwrap().unwrap();
        assert_eq!((late.kind, late.off_by), (RefusalKind::TooOld, Some(-301_000)));
        let early = rule.check("1000", at(699)).unwrap().unwrap();
        assert_eq!((early.kind, early.off_by), (RefusalKind::TooEarly, Some(301_000)));
        assert_eq!(early.to_string(), "too_early: t (off by 301000 ms)");
    }
}
