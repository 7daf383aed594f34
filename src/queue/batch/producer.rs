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

#[derive(Debug)]
struct Numbers {
    last: u64,
    /// Numbers of the batches that may be sent again.
    open: BTreeSet<u64>,
}

impl Producer {
    pub(in crate::queue) fn new() -> Self {
        Self::numbering_after(0)
    }

    /// Creates a producer whose first batch has the number after `last`. Producers that use the
    /// same connection need different numbers, because a reply is recognized by its number.
    pub(in crate::queue) fn numbering_after(last: u64) -> Self {
        let numbers = Numbers { last, open: BTreeSet::new() };
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { id, numbers: Arc::new(Mutex::new(numbers)) }
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
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        /// Each step opens a batch, or closes one of the open batches.
        #[test]
        fn the_mark_stays_below_every_open_number_and_never_goes_back(
            steps in vec(any::<Option<proptest::sample::Index>>(), 1..200),
        ) {
            let producer = Producer::new();
            let (mut open, mut last_mark, mut last) = (Vec::new(), 0, 0);
            for step in steps {
                match step {
                    Some(index) if !open.is_empty() => drop(open.swap_remove(index.index(open.len()))),
                    _ => open.push(producer.open_batch()),
                }
                let numbers = open.iter().map(BatchNumber::get);
                let newest = numbers.clone().max().unwrap_or(last);
                let Some(oldest) = numbers.min() else { continue };
                for number in &open {
                    let mark = number.low_water_mark();
                    prop_assert_eq!(mark, oldest - 1);
                    prop_assert!(mark >= last_mark);
                    last_mark = mark;
                }
                last = newest.max(last);
                prop_assert_eq!(producer.numbers.lock().last, last);
            }
            drop(open);
            prop_assert!(producer.numbers.lock().open.is_empty());
        }
    }

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

    #[test]
    fn numbers_may_begin_anywhere() {
        let producer = Producer::numbering_after(1 << 40);
        let first = producer.open_batch();
        assert_eq!((first.get(), first.low_water_mark()), ((1 << 40) + 1, 1 << 40));
    }
}
