//! Bounds how often a line is logged that could otherwise flood the log.

use std::time::Duration;
use tokio::time::Instant;

/// Allows at most a number of lines within each span of time.
#[derive(Debug)]
pub struct LogThrottle {
    max: u32,
    span: Duration,
    /// The start of the current span.
    began: Option<Instant>,
    /// Lines that were requested in the current span.
    requested: u32,
}

impl LogThrottle {
    pub const fn new(max: u32, span: Duration) -> Self {
        Self { max, span, began: None, requested: 0 }
    }

    /// Counts one more line, and returns whether it may be written.
    pub fn allows(&mut self) -> bool {
        let now = Instant::now();
        if self.began.is_none_or(|began| now.duration_since(began) >= self.span) {
            self.began = Some(now);
            self.requested = 0;
        }
        self.requested = self.requested.saturating_add(1);
        self.requested <= self.max
    }

    /// Whether the line that was just suppressed was the first one of its span.
    pub fn has_begun_to_refuse(&self) -> bool {
        self.requested == self.max + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_allows_its_number_of_lines() {
        let mut throttle = LogThrottle::new(2, Duration::from_secs(3600));
        let allowed: Vec<bool> = (0..4).map(|_| throttle.allows()).collect();
        assert_eq!(allowed, [true, true, false, false]);
        let mut throttle = LogThrottle::new(1, Duration::ZERO);
        assert!(throttle.allows() && throttle.allows());
    }

    #[test]
    fn the_first_suppressed_line_is_reported_once() {
        let mut throttle = LogThrottle::new(1, Duration::from_secs(3600));
        let reported: Vec<bool> =
            (0..3).map(|_| !throttle.allows() && throttle.has_begun_to_refuse()).collect();
        assert_eq!(reported, [false, true, false]);
    }
}
