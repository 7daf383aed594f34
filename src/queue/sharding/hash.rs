//! The hash functions of `docs/reference/sharding.md`. They never change: another result would move
//! organizations to other queues.

use crate::ids::OrganizationId;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a with 64 bits.
pub(in crate::queue) fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The first output of the generator splitmix64 with this seed.
#[inline]
pub(in crate::queue) fn splitmix64(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The hash of an organization: that of its canonical form, so that all spellings of one
/// organization have one queue.
#[inline]
pub(in crate::queue) fn of_organization(organization: &OrganizationId) -> u64 {
    let bytes = organization.as_str().as_bytes();
    // One pass over the usual id. Only upper case can differ from the canonical form.
    let (hash, has_upper_case) = bytes.iter().fold((OFFSET, false), |(hash, upper), byte| {
        ((hash ^ u64::from(*byte)).wrapping_mul(PRIME), upper | byte.is_ascii_uppercase())
    });
    if has_upper_case { fnv1a64(organization.canonical().as_bytes()) } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_are_the_published_ones() {
        // http://www.isthe.com/chongo/tech/comp/fnv/ and the first outputs of the reference
        // implementation of splitmix64 for the seeds 0 and 1234567.
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn spellings_of_one_organization_have_one_hash() {
        for (spelling, canonical) in [
            ("65A1B2C3D4E5F60718293A4B", "65a1b2c3d4e5f60718293a4b"),
            ("65a1b2c3d4e5f60718293a4B", "65a1b2c3d4e5f60718293a4b"),
            ("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            ("Org-A", "Org-A"),
            ("org \u{e9}", "org \u{e9}"),
        ] {
            let organization = OrganizationId::new(spelling).unwrap();
            assert_eq!(of_organization(&organization), fnv1a64(canonical.as_bytes()), "{spelling}");
        }
    }
}
