//! Producers of batches and the numbers of their open batches. Redis uses both to execute a batch
//! at most once.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The identity under which Redis deduplicates batches: a random id and the open batch numbers. It
/// stays the same across connections.
#[derive(Debug)]
pub(in crate::queue) struct Producer {
    /// A random id that no other producer has.
    pub(in crate::queue) id: String,
    numbers: Arc<Mutex<Numbers>>,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    /// Numbers of the batches that may be sent again.
    open: BTreeSet<u64>,
}

impl Producer {
    pub(in crate::queue) fn new() -> Self {
        Self { id: uuid::Uuid::new_v4().simple().to_string(), numbers: Arc::default() }
    }

    /// Returns the number of a new batch. The batch stays open until the number is dropped.
    pub(in crate::queue) fn open_batch(&self) -> BatchNumber {
        let mut numbers = self.numbers.lock();
        numbers.last += 1;
        let number = numbers.last;
        numbers.open.insert(number);
        BatchNumber { number, numbers: Arc::clone(&self.numbers) }
    }
}

/// The number of an open batch. It is dropped once the answers to its callers are decided; from
/// then on Redis refuses every attempt of the batch.
#[derive(Debug)]
pub(in crate::queue) struct BatchNumber {
    number: u64,
    numbers: Arc<Mutex<Numbers>>,
}

impl BatchNumber {
    pub(in crate::queue) fn get(&self) -> u64 {
        self.number
    }

    /// The number up to which the producer is done: every batch up to it was answered or given up.
    pub(in crate::queue) fn low_water_mark(&self) -> u64 {
        let numbers = self.numbers.lock();
        numbers.open.first().map_or(numbers.last, |oldest| oldest - 1)
    }
}

impl Drop for BatchNumber {
    fn drop(&mut self) {
        self.numbers.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_water_mark_is_just_below_the_oldest_open_batch() {
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
