//! The account of each organization: what it has in flight, and what it has started lately.
//!
//! A request looks up its account once, under a short lock, and uses atomics from then on. Idle
//! accounts are removed once a second.

use crate::ids::OrganizationId;
use atomics::bucket::Bucket;
use atomics::in_flight::InFlight;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Parts of the map, each with its own lock.
const LOCKS: usize = 64;
const LOCK_MASK: u64 = LOCKS as u64 - 1;

/// How long jobs count, in calls of [`Accounts::sample`], which runs once a second.
const SAMPLES_KEPT: usize = 60;

/// Requests in flight, and the bytes reserved for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

impl Amount {
    /// A share of both, each at least 1.
    pub(super) fn share(self, share: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the amounts are far below 2^52"
        )]
        let share_of = |total: usize| ((total as f64 * share) as usize).max(1);
        Self { requests: share_of(self.requests), bytes: share_of(self.bytes) }
    }
}

/// The account of one organization.
#[derive(Debug)]
pub(super) struct Account {
    organization: OrganizationId,
    hash: u64,
    /// The queue that gets its jobs, if there are several. It stays the same until a restart.
    queue: OnceLock<usize>,
    pub(super) in_flight: InFlight,
    pub(super) request_rate: Bucket,
    pub(super) job_rate: Bucket,
    jobs: JobCount,
    /// Whether it has started more than twice as many jobs in the last minute as the others on
    /// average.
    is_heavy: AtomicBool,
}

impl Account {
    fn new(organization: &OrganizationId, hash: u64) -> Self {
        Self {
            organization: organization.clone(),
            hash,
            queue: OnceLock::new(),
            in_flight: InFlight::default(),
            request_rate: Bucket::default(),
            job_rate: Bucket::default(),
            jobs: JobCount::default(),
            is_heavy: AtomicBool::new(false),
        }
    }

    pub(super) fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// The queue that `find` finds; it is called for the first request only.
    #[inline]
    pub(super) fn queue(&self, find: impl FnOnce() -> usize) -> usize {
        *self.queue.get_or_init(find)
    }

    pub(super) fn add_jobs(&self, jobs: usize) {
        self.jobs.current.fetch_add(jobs, Ordering::Relaxed);
    }

    pub(super) fn is_heavy(&self) -> bool {
        self.is_heavy.load(Ordering::Relaxed)
    }

    /// Whether removing the account loses nothing, provided that nothing is in flight.
    fn is_idle(&self, now: u64) -> bool {
        self.jobs.is_empty() && self.request_rate.is_full(now) && self.job_rate.is_full(now)
    }
}

/// The jobs started in this minute and in the previous one.
#[derive(Debug, Default)]
struct JobCount {
    current: AtomicUsize,
    previous: AtomicUsize,
}

impl JobCount {
    fn next_minute(&self) {
        self.previous.store(self.current.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// 60 × the estimated jobs of the last 60 s: this minute's jobs in full, the previous minute's
    /// weighted by the part still inside the window. `second` is the position in this minute.
    fn last_minute_times_60(&self, second: usize) -> usize {
        let previous = self.previous.load(Ordering::Relaxed);
        self.current.load(Ordering::Relaxed) * SAMPLES_KEPT + previous * (SAMPLES_KEPT - second)
    }

    fn is_empty(&self) -> bool {
        self.current.load(Ordering::Relaxed) == 0 && self.previous.load(Ordering::Relaxed) == 0
    }
}

/// The accounts of all organizations.
#[derive(Debug)]
pub(super) struct Accounts {
    parts: Box<[Mutex<HashTable<Arc<Account>>>]>,
    /// Randomly seeded, so that a caller cannot choose ids whose hashes collide.
    hasher: DefaultHashBuilder,
}

impl Default for Accounts {
    fn default() -> Self {
        let parts = (0..LOCKS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: DefaultHashBuilder::default() }
    }
}

impl Accounts {
    /// Returns the account of an organization, and creates it if there is none.
    pub(super) fn get_or_insert(&self, organization: &OrganizationId) -> Arc<Account> {
        let hash = self.hasher.hash_one(organization);
        // The hash table itself uses the lowest and the highest bits of the hash.
        let part = usize::try_from(hash >> 32 & LOCK_MASK).ok().and_then(|at| self.parts.get(at));
        let mut part = part.expect("there is a part for every hash").lock();
        let is_same = |account: &Arc<Account>| account.organization == *organization;
        match part.entry(hash, is_same, |account| account.hash) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                let account = Arc::new(Account::new(organization, hash));
                Arc::clone(entry.insert(account).get())
            }
        }
    }

    /// Counts the jobs of the last minute, marks heavy organizations, and removes idle accounts. It
    /// runs once a second; `tick` is the number of the call. If more than `max` accounts remain,
    /// all those without a request in flight are removed. Returns whether that happened.
    pub(super) fn sample(&self, tick: usize, now: u64, max: usize) -> bool {
        let second = tick % SAMPLES_KEPT;
        let (mut jobs, mut organizations, mut left) = (0_usize, 0_usize, 0);
        for part in &self.parts {
            let mut part = part.lock();
            part.retain(|account| {
                if second == 0 {
                    account.jobs.next_minute();
                }
                let own = account.jobs.last_minute_times_60(second);
                jobs += own;
                organizations += usize::from(own > 0);
                is_in_use(account) || !account.is_idle(now)
            });
            left += part.len();
        }
        let is_full = left > max;
        for part in &self.parts {
            let mut part = part.lock();
            if is_full {
                part.retain(is_in_use);
            }
            if part.len() < part.capacity() / 4 {
                part.shrink_to_fit(|account| account.hash);
            }
            for account in part.iter() {
                let own = account.jobs.last_minute_times_60(second);
                let is_heavy = is_heavy(own, jobs.saturating_sub(own), organizations);
                account.is_heavy.store(is_heavy, Ordering::Relaxed);
            }
        }
        is_full
    }

    /// What `find` returns for the accounts, at most `max`.
    pub(super) fn filter_map<T>(&self, find: impl Fn(&Account) -> Option<T>, max: usize) -> Vec<T> {
        let mut found = Vec::new();
        for part in &self.parts {
            let part = part.lock();
            let left = max - found.len();
            found.extend(part.iter().filter_map(|account| find(account)).take(left));
        }
        found
    }

    /// Refills the bursts of all organizations.
    pub(super) fn reset_rates(&self) {
        for part in &self.parts {
            for account in part.lock().iter() {
                account.request_rate.reset();
                account.job_rate.reset();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }
}

/// Whether a request holds the account. No request can begin to while its part of the map is
/// locked. If none does, everything that requests have done with it is visible here, which
/// `Arc::strong_count` would not guarantee.
fn is_in_use(account: &mut Arc<Account>) -> bool {
    Arc::get_mut(account).is_none()
}

/// Whether `own` jobs are more than twice the mean of the other organizations that have started
/// jobs. A single organization is never heavy, because there is no other to protect.
fn is_heavy(own: usize, others_jobs: usize, organizations: usize) -> bool {
    organizations > 1 && own.saturating_mul(organizations - 1) > others_jobs.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> OrganizationId {
        OrganizationId::new(&format!("org_{number}")).unwrap()
    }

    #[test]
    fn an_idle_account_is_removed() {
        let accounts = Accounts::default();
        let held = accounts.get_or_insert(&id(1));
        assert!(Arc::ptr_eq(&held, &accounts.get_or_insert(&id(1))));
        accounts.get_or_insert(&id(2)).add_jobs(1);
        accounts.get_or_insert(&id(3));
        accounts.sample(1, 0, 10);
        assert_eq!(accounts.len(), 2, "one is in use, one has started a job");
        accounts.sample(60, 0, 10);
        assert_eq!(accounts.len(), 2);
        accounts.sample(120, 0, 10);
        assert_eq!(accounts.len(), 1);
        drop(held);
        accounts.sample(121, 0, 10);
        assert_eq!(accounts.len(), 0);
    }

    #[test]
    fn the_queue_of_an_organization_is_found_once() {
        let accounts = Accounts::default();
        let queue = |spelling: &str, found| {
            let organization = OrganizationId::new(spelling).unwrap();
            accounts.get_or_insert(&organization).queue(|| found)
        };
        assert_eq!(queue("65a1b2c3d4e5f60718293a4b", 1), 1);
        assert_eq!(queue("65A1B2C3D4E5F60718293A4B", 2), 1, "another spelling");
        assert_eq!(queue("org_1", 3), 3);
    }

    #[test]
    fn a_full_table_keeps_only_accounts_in_use() {
        let accounts = Accounts::default();
        (0..100).for_each(|number| accounts.get_or_insert(&id(number)).add_jobs(1));
        let _held = accounts.get_or_insert(&id(7));
        assert!(!accounts.sample(1, 0, 100));
        assert!(accounts.sample(2, 0, 99));
        assert_eq!(accounts.len(), 1);
    }

    #[test]
    fn an_organization_with_over_twice_the_jobs_of_others_is_heavy_for_a_minute() {
        let accounts = Accounts::default();
        let [big, small, none] = [1, 2, 3].map(|number| accounts.get_or_insert(&id(number)));
        big.add_jobs(21);
        accounts.sample(1, 0, 10);
        assert!(!big.is_heavy(), "there is no other organization");
        small.add_jobs(10);
        accounts.sample(2, 0, 10);
        assert_eq!([&big, &small, &none].map(|account| account.is_heavy()), [true, false, false]);
        small.add_jobs(1);
        accounts.sample(3, 0, 10);
        assert!(!big.is_heavy());
        big.add_jobs(20);
        for (tick, is_heavy) in [(60, true), (119, true), (120, false)] {
            accounts.sample(tick, 0, 10);
            assert_eq!(big.is_heavy(), is_heavy, "{tick}");
        }
    }
}
