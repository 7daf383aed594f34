//! Calls of the script as the search makes them. Their texts are as short as possible.

use super::Protocol;
use super::world::Call;
use crate::script::{Batch, IdempotencyKey, Keys, PausedLayout, Request, Text};

/// The numbers of requests, jobs, keys and bodies as text of one character.
fn text(bytes: &[u8]) -> Text {
    String::from_utf8_lossy(bytes).into()
}

/// The key of the record of a producer.
pub(super) fn producer_key(name: u8) -> Text {
    text(&[name])
}

/// The key of the record of an idempotency key.
pub(super) fn idempotency_key(key: u8) -> Text {
    text(&[key])
}

pub(super) fn fingerprint(body: u8) -> Text {
    text(&[body])
}

impl Protocol {
    pub(super) fn script_batch(&self, call: &Call) -> Batch {
        let requests = if call.is_withdrawal { &[][..] } else { &call.requests };
        Batch {
            keys: Keys { producer: producer_key(call.producer), ..self.keys.clone() },
            job_name: Text::clone(&self.keys.job_prefix),
            options: Text::clone(&self.keys.job_prefix),
            paused_layout: PausedLayout::V6,
            writes_events: false,
            record_ttl: u64::MAX,
            number: call.number.into(),
            mark: call.mark.into(),
            deadline: call.deadline.into(),
            timestamp: 0,
            is_withdrawal: call.is_withdrawal,
            requests: requests.iter().filter_map(|request| self.script_request(*request)).collect(),
        }
    }

    fn script_request(&self, number: u8) -> Option<Request> {
        let request = self.request(number)?;
        let key = request.key.map(|(key, body)| IdempotencyKey {
            key: idempotency_key(key),
            fingerprint: fingerprint(body),
            ttl: u64::MAX,
        });
        let heads = (0..request.jobs).map(|job| text(&[number, job])).collect();
        let empty = &self.keys.job_prefix;
        Some(Request { heads, tail: Text::clone(empty), options: Text::clone(empty), key })
    }
}
