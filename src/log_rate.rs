//! Bounds how often something is logged that may come in floods.

use std::time::Duration;
use tokio::time::Instant;

/// So many lines within a span of time.
#[derive(Debug)]
pub struct LogRate {
    most: u32,
    span: Duration,
    /// When the present span began, and how many lines were asked for in it.
    began: Option<Instant>,
    asked: u32,
}

impl LogRate {
    pub const fn new(most: u32, span: Duration) -> Self {
        Self { most, span, began: None, asked: 0 }
    }

    /// Whether one more line may be written.
    pub fn allows(&mut self) -> bool {
        let now = Instant::now();
        if self.began.is_none_or(|began| now.duration_since(began) >= self.span) {
            self.began = Some(now);
            self.asked = 0;
        }
        self.asked = self.asked.saturating_add(1);
        self.asked <= self.most
    }

    /// Whether the line just refused was the first of its span.
    pub fn has_begun_to_refuse(&self) -> bool {
        self.asked == self.most + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_are_allowed_and_then_again() {
        let mut rate = LogRate::new(2, Duration::from_secs(3600));
        let allowed: Vec<bool> = (0..4).map(|_| rate.allows()).collect();
        assert_eq!(allowed, [true, true, false, false]);
        let mut rate = LogRate::new(1, Duration::ZERO);
        assert!(rate.allows() && rate.allows());
    }

    #[test]
    fn the_first_refusal_is_told_from_the_others() {
        let mut rate = LogRate::new(1, Duration::from_secs(3600));
        let told: Vec<bool> =
            (0..3).map(|_| !rate.allows() && rate.has_begun_to_refuse()).collect();
        assert_eq!(told, [false, true, false]);
    }
}
