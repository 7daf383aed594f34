//! Replies of the script that adds jobs.

use hookgate::queue::{BatchOutcome, BatchReply, RequestOutcome};

/// The batch that is answered.
const BATCH: u64 = 7;

/// More requests than a batch has in these checks.
const MAX_REQUESTS: u8 = 16;

/// The first byte is the number of requests, the rest is the reply. It is read exactly as the
/// script writes it, and what was read can be written again.
pub fn check(data: &[u8]) {
    let Some((requests, reply)) = data.split_first() else { return };
    let requests = usize::from(requests % MAX_REQUESTS);
    let read = BatchReply::read(reply, BATCH, requests);
    assert_eq!(read.is_some(), is_reply(reply, requests), "{read:?}");
    let Some(BatchReply { clock, outcome }) = read else { return };
    if let BatchOutcome::Settled(outcomes) = &outcome {
        assert_eq!(outcomes.len(), requests);
    }
    let again = format!("{BATCH} {clock} {}", written(&outcome));
    let expected = Some(BatchReply { clock, outcome });
    assert_eq!(BatchReply::read(again.as_bytes(), BATCH, requests), expected, "{again}");
}

/// The grammar of a reply, byte by byte.
fn is_reply(reply: &[u8], requests: usize) -> bool {
    let words: Vec<&[u8]> = reply.split(|byte| *byte == b' ').collect();
    let [batch, clock, outcome] = words[..] else { return false };
    if number(batch) != Some(u128::from(BATCH)) || !is_u64(clock) {
        return false;
    }
    match outcome {
        b"late" | b"-" | b"*" => true,
        letters => count(letters) == Some(requests),
    }
}

/// The number of outcomes; `None` if one is malformed.
fn count(mut letters: &[u8]) -> Option<usize> {
    let mut outcomes = 0;
    while let Some((letter, rest)) = letters.split_first() {
        let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        let (matched, rest) = rest.split_at(digits);
        let is_outcome = match letter {
            b'A' | b'E' | b'X' => matched.is_empty(),
            b'R' => is_u64(matched),
            _ => false,
        };
        is_outcome.then_some(())?;
        outcomes += 1;
        letters = rest;
    }
    Some(outcomes)
}

fn is_u64(digits: &[u8]) -> bool {
    number(digits).is_some_and(|number| number <= u128::from(u64::MAX))
}

/// A number of digits only. One that does not fit is as large as can be.
fn number(digits: &[u8]) -> Option<u128> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let append = |number: u128, digit: &u8| {
        number.saturating_mul(10).saturating_add(u128::from(digit - b'0'))
    };
    is_number.then(|| digits.iter().fold(0, append))
}

fn written(outcome: &BatchOutcome) -> String {
    match outcome {
        BatchOutcome::Late => "late".to_owned(),
        BatchOutcome::Withdrawn => "-".to_owned(),
        BatchOutcome::Settled(outcomes) if outcomes.is_empty() => "*".to_owned(),
        BatchOutcome::Settled(outcomes) => outcomes.iter().map(letter).collect(),
    }
}

fn letter(outcome: &RequestOutcome) -> String {
    match outcome {
        RequestOutcome::Added => "A".to_owned(),
        RequestOutcome::KeyConflict => "E".to_owned(),
        RequestOutcome::KeyReused => "X".to_owned(),
        RequestOutcome::Repeated { matched } => format!("R{matched}"),
    }
}
