//! What each organization has in flight, and what it has started lately.
//!
//! A request looks its organization up once, behind a lock that is held for that moment, and counts with atomics from then
//! on. Accounts of which there is nothing to be known are forgotten once a second.

use super::bucket::Bucket;
use crate::ids::OrganizationId;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of the map, each with a lock of its own.
const PARTS: usize = 64;
const PART_MASK: u64 = PARTS as u64 - 1;

/// How long jobs count, in looks: one a second.
const MINUTE: usize = 60;

/// Requests in flight, and the bytes they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

/// What is known of one organization.
#[derive(Debug)]
pub(super) struct Account {
    organization: OrganizationId,
    hash: u64,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    pub(super) request_rate: Bucket,
    pub(super) job_rate: Bucket,
    jobs: JobCount,
    /// Whether it has started over twice as many jobs within a minute as the others have on average.
    is_heavy: AtomicBool,
}

impl Account {
    fn new(organization: &OrganizationId, hash: u64) -> Self {
        Self {
            organization: organization.clone(),
            hash,
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            request_rate: Bucket::default(),
            job_rate: Bucket::default(),
            jobs: JobCount::default(),
            is_heavy: AtomicBool::new(false),
        }
    }

    pub(super) fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// What is in flight, this included.
    pub(super) fn add_request(&self) -> usize {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn end_request(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.give_back(bytes);
    }

    /// What is held, these included.
    pub(super) fn add_bytes(&self, bytes: usize) -> usize {
        self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_jobs(&self, jobs: usize) {
        self.jobs.current.fetch_add(jobs, Ordering::Relaxed);
    }

    pub(super) fn is_heavy(&self) -> bool {
        self.is_heavy.load(Ordering::Relaxed)
    }

    /// Whether nothing is lost where it is forgotten, nothing being in flight.
    fn is_idle(&self, now: u64) -> bool {
        self.jobs.are_none() && self.request_rate.is_full(now) && self.job_rate.is_full(now)
    }
}

/// Jobs of this minute and of the one before.
#[derive(Debug, Default)]
struct JobCount {
    current: AtomicUsize,
    previous: AtomicUsize,
}

impl JobCount {
    fn next_minute(&self) {
        self.previous.store(self.current.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Sixtieths of about as many as in the last minute, so far into this one: those of the one before count for what of
    /// it lies within.
    fn of_last_minute(&self, second: usize) -> usize {
        let previous = self.previous.load(Ordering::Relaxed);
        self.current.load(Ordering::Relaxed) * MINUTE + previous * (MINUTE - second)
    }

    fn are_none(&self) -> bool {
        self.current.load(Ordering::Relaxed) == 0 && self.previous.load(Ordering::Relaxed) == 0
    }
}

/// Of every organization of which there is anything to be known.
#[derive(Debug)]
pub(super) struct Accounts {
    parts: Box<[Mutex<HashTable<Arc<Account>>>]>,
    /// With a seed of its own: nobody can choose ids that fall together.
    hasher: DefaultHashBuilder,
}

impl Default for Accounts {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: DefaultHashBuilder::default() }
    }
}

impl Accounts {
    pub(super) fn of(&self, organization: &OrganizationId) -> Arc<Account> {
        let hash = self.hasher.hash_one(organization.as_str());
        // The map takes the lowest and the highest bits.
        let part = usize::try_from(hash >> 32 & PART_MASK).ok().and_then(|at| self.parts.get(at));
        let mut part = lock(part.expect("there is a part for every hash"));
        let is_it = |account: &Arc<Account>| account.organization == *organization;
        match part.entry(hash, is_it, |account| account.hash) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(place) => {
                let account = Arc::new(Account::new(organization, hash));
                Arc::clone(place.insert(account).get())
            }
        }
    }

    /// To be called once a second: counts the jobs of the last minute, says who is heavy, and forgets accounts that say
    /// nothing. If more than `most` would be left, every one without a request in flight is forgotten; answers whether
    /// that was so.
    pub(super) fn look(&self, look: usize, now: u64, most: usize) -> bool {
        let second = look % MINUTE;
        let (mut jobs, mut organizations, mut left) = (0_usize, 0_usize, 0);
        for part in &self.parts {
            let mut part = lock(part);
            part.retain(|account| {
                if second == 0 {
                    account.jobs.next_minute();
                }
                let own = account.jobs.of_last_minute(second);
                jobs += own;
                organizations += usize::from(own > 0);
                is_in_use(account) || !account.is_idle(now)
            });
            left += part.len();
        }
        let are_too_many = left > most;
        for part in &self.parts {
            let mut part = lock(part);
            if are_too_many {
                part.retain(|account| is_in_use(account));
            }
            if part.len() < part.capacity() / 4 {
                part.shrink_to_fit(|account| account.hash);
            }
            for account in part.iter() {
                let own = account.jobs.of_last_minute(second);
                let is_heavy = is_heavy(own, jobs.saturating_sub(own), organizations);
                account.is_heavy.store(is_heavy, Ordering::Relaxed);
            }
        }
        are_too_many
    }

    /// Gives every organization all of its bursts.
    pub(super) fn reset_rates(&self) {
        for part in &self.parts {
            for account in lock(part).iter() {
                account.request_rate.reset();
                account.job_rate.reset();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }
}

/// Whether a request holds it; nobody can begin to while its part is locked.
fn is_in_use(account: &Arc<Account>) -> bool {
    Arc::strong_count(account) > 1
}

/// Whether so many jobs are over twice the mean of the other organizations that have started any. One alone never is:
/// there is nobody to be spared.
fn is_heavy(own: usize, others_jobs: usize, organizations: usize) -> bool {
    organizations > 1 && own.saturating_mul(organizations - 1) > others_jobs.saturating_mul(2)
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> OrganizationId {
        OrganizationId::new(&format!("org_{number}")).unwrap()
    }

    #[test]
    fn an_account_lasts_as_long_as_it_says_anything() {
        let accounts = Accounts::default();
        let held = accounts.of(&id(1));
        assert!(Arc::ptr_eq(&held, &accounts.of(&id(1))));
        accounts.of(&id(2)).add_jobs(1);
        accounts.of(&id(3));
        accounts.look(1, 0, 10);
        assert_eq!(accounts.len(), 2, "one is in use, one has started a job");
        accounts.look(60, 0, 10);
        assert_eq!(accounts.len(), 2);
        accounts.look(120, 0, 10);
        assert_eq!(accounts.len(), 1);
        drop(held);
        accounts.look(121, 0, 10);
        assert_eq!(accounts.len(), 0);
    }

    #[test]
    fn too_many_are_forgotten_but_for_those_in_use() {
        let accounts = Accounts::default();
        (0..100).for_each(|number| accounts.of(&id(number)).add_jobs(1));
        let _held = accounts.of(&id(7));
        assert!(!accounts.look(1, 0, 100));
        assert!(accounts.look(2, 0, 99));
        assert_eq!(accounts.len(), 1);
    }

    #[test]
    fn who_starts_over_twice_as_much_as_the_others_is_heavy_for_a_minute() {
        let accounts = Accounts::default();
        let [big, small, none] = [1, 2, 3].map(|number| accounts.of(&id(number)));
        big.add_jobs(21);
        accounts.look(1, 0, 10);
        assert!(!big.is_heavy(), "there is nobody else");
        small.add_jobs(10);
        accounts.look(2, 0, 10);
        assert_eq!([&big, &small, &none].map(|account| account.is_heavy()), [true, false, false]);
        small.add_jobs(1);
        accounts.look(3, 0, 10);
        assert!(!big.is_heavy());
        big.add_jobs(20);
        for (look, is_heavy) in [(60, true), (119, true), (120, false)] {
            accounts.look(look, 0, 10);
            assert_eq!(big.is_heavy(), is_heavy, "{look}");
        }
    }
}
