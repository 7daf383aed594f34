//! Named fields as an object of JSON: a name that is there several times is an array.

use crate::endpoints::payload::strings::append_text;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

/// Fields between which a task yields.
const STEP: usize = 1024;

/// Memory that the order of a field takes: its link, and its place in a table that grows.
pub(super) const BYTES_PER_FIELD: usize = 22;

/// Fields in the order in which they came. There are fewer than 2^31.
pub(super) trait Fields: Sync {
    fn count(&self) -> usize;
    fn name(&self, field: usize) -> Cow<'_, str>;
    /// Appends the value as JSON.
    fn append_value(&self, json: &mut Vec<u8>, field: usize);
}

/// Writes fields as an object, in the order of the first of each name.
pub(super) async fn object(fields: &impl Fields, bytes: usize) -> Vec<u8> {
    let links = Links::new(fields).await;
    let mut json = Vec::with_capacity(bytes);
    json.push(b'{');
    for first in 0..fields.count() {
        if first % STEP == STEP - 1 {
            tokio::task::yield_now().await;
        }
        if !links.is_first(first) {
            continue;
        }
        if json.len() > 1 {
            json.push(b',');
        }
        append_text(&mut json, &fields.name(first));
        json.push(b':');
        append_values(&mut json, fields, &links, first).await;
    }
    json.push(b'}');
    json
}

/// Appends the value of a field, or the values of all fields of its name.
async fn append_values(json: &mut Vec<u8>, fields: &impl Fields, links: &Links, first: usize) {
    let Some(second) = links.next(first) else { return fields.append_value(json, first) };
    json.push(b'[');
    fields.append_value(json, first);
    let mut following = Some(second);
    let mut written = 0_usize;
    while let Some(field) = following {
        json.push(b',');
        fields.append_value(json, field);
        following = links.next(field);
        written += 1;
        if written.is_multiple_of(STEP) {
            tokio::task::yield_now().await;
        }
    }
    json.push(b']');
}

/// For each field, which field has the same name next.
struct Links(Vec<u32>);

/// No field follows.
const LAST: u32 = !FOLLOWS;

/// The bit of a field that follows another.
const FOLLOWS: u32 = 1 << 31;

impl Links {
    /// Links the fields from the last to the first, so that each finds the next in the table.
    async fn new(fields: &impl Fields) -> Self {
        let hasher = RandomState::new();
        let hash = |field: &u32| hasher.hash_one(&*fields.name(*field as usize));
        let mut links = Self(vec![LAST; fields.count()]);
        let mut table = HashTable::new();
        for (count, field) in (0..u32::try_from(fields.count()).unwrap_or(LAST)).rev().enumerate() {
            if count % STEP == STEP - 1 {
                tokio::task::yield_now().await;
            }
            let name = fields.name(field as usize);
            let is_same = |other: &u32| fields.name(*other as usize) == name;
            match table.entry(hasher.hash_one(&*name), is_same, hash) {
                Entry::Vacant(place) => {
                    place.insert(field);
                }
                Entry::Occupied(mut place) => {
                    let next = std::mem::replace(place.get_mut(), field);
                    links.link(field, next);
                }
            }
        }
        links
    }

    fn link(&mut self, field: u32, next: u32) {
        if let Some(link) = self.0.get_mut(next as usize) {
            *link |= FOLLOWS;
        }
        if let Some(link) = self.0.get_mut(field as usize) {
            *link = next;
        }
    }

    fn is_first(&self, field: usize) -> bool {
        self.0.get(field).is_some_and(|link| link & FOLLOWS == 0)
    }

    fn next(&self, field: usize) -> Option<usize> {
        let link = self.0.get(field)? & !FOLLOWS;
        (link != LAST).then_some(link as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Fields that count how often a name is asked for.
    struct Counted {
        names: Vec<String>,
        asked: AtomicUsize,
    }

    impl Fields for Counted {
        fn count(&self) -> usize {
            self.names.len()
        }

        fn name(&self, field: usize) -> Cow<'_, str> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Cow::Borrowed(&self.names[field])
        }

        fn append_value(&self, json: &mut Vec<u8>, field: usize) {
            json.extend_from_slice(field.to_string().as_bytes());
        }
    }

    async fn read(names: Vec<String>) -> (String, usize) {
        let fields = Counted { names, asked: AtomicUsize::new(0) };
        let json = object(&fields, 0).await;
        (String::from_utf8(json).unwrap(), fields.asked.into_inner())
    }

    #[tokio::test]
    async fn a_repeated_name_is_an_array_in_the_place_of_the_first() {
        let names = ["b", "a", "b", "", "a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(read(names).await.0, r#"{"b":[0,2,5],"a":[1,4],"":3,"c":6}"#);
        assert_eq!(read(Vec::new()).await.0, "{}");
    }

    #[tokio::test]
    async fn the_work_grows_with_the_fields_and_not_with_their_square() {
        const COUNT: usize = 100_000;
        let one = vec!["a".to_owned(); COUNT];
        let many = (0..COUNT).map(|number| number.to_string()).collect();
        let pairs = (0..COUNT).map(|number| (number / 2).to_string()).collect();
        for names in [one, many, pairs] {
            let (json, asked) = read(names).await;
            assert!(asked <= 8 * COUNT, "{asked}");
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&json).unwrap();
            let values = |value: &serde_json::Value| value.as_array().map_or(1, Vec::len);
            assert_eq!(object.values().map(values).sum::<usize>(), COUNT);
        }
    }
}
