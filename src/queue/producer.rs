//! Who sends batches, and which of them are still open: what Redis needs to take a batch at most once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A sender of batches, under whatever connections it has in the course of time. Redis remembers its
/// batches by its id and their numbers.
#[derive(Debug)]
pub(super) struct Producer {
    /// Random: no two producers share one.
    pub(super) id: String,
    numbers: Arc<Mutex<Numbers>>,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    /// Numbers of batches that may still be sent again.
    open: BTreeSet<u64>,
}

impl Producer {
    pub(super) fn new() -> Self {
        Self { id: uuid::Uuid::new_v4().simple().to_string(), numbers: Arc::default() }
    }

    /// The number of a new batch, which stays open until it is dropped.
    pub(super) fn open_batch(&self) -> BatchNumber {
        let mut numbers = lock(&self.numbers);
        numbers.last += 1;
        let number = numbers.last;
        numbers.open.insert(number);
        BatchNumber { number, numbers: Arc::clone(&self.numbers) }
    }
}

/// The number of a batch that is not done with. Dropped when it is settled what its callers are told: from
/// then on Redis refuses every copy of it.
#[derive(Debug)]
pub(super) struct BatchNumber {
    number: u64,
    numbers: Arc<Mutex<Numbers>>,
}

impl BatchNumber {
    pub(super) fn get(&self) -> u64 {
        self.number
    }

    /// Every number up to this one has been answered or given up.
    pub(super) fn low_water_mark(&self) -> u64 {
        let numbers = lock(&self.numbers);
        numbers.open.first().map_or(numbers.last, |oldest| oldest - 1)
    }
}

impl Drop for BatchNumber {
    fn drop(&mut self) {
        lock(&self.numbers).open.remove(&self.number);
    }
}

fn lock(numbers: &Mutex<Numbers>) -> MutexGuard<'_, Numbers> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_below_the_oldest_open_batch() {
        let producer = Producer::new();
        let first = producer.open_batch();
        let second = producer.open_batch();
        assert_eq!((first.get(), second.get(), second.low_water_mark()), (1, 2, 0));
        drop(first);
        assert_eq!(second.low_water_mark(), 1);
        let third = producer.open_batch();
        drop(second);
        assert_eq!(third.low_water_mark(), 2);
        drop(third);
        assert_eq!(producer.open_batch().low_water_mark(), 3);
    }
}
