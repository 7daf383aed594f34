//! What the messages of a check are fed to.

use crate::endpoints::verification::keys::{Keys, PublicKey};
use crate::endpoints::verification::rules::Algorithm;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, Context, SHA256};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};

pub(super) enum Hasher {
    /// One for each secret.
    Hmac(Vec<hmac::Context>),
    Sha256(Context),
    /// Ed25519 reads a message twice for each signature and key, so it needs the whole.
    Whole(Whole),
}

/// A message, and which pairs of key and signature are tried.
pub(super) struct Whole {
    message: Vec<u8>,
    tried: usize,
    accepted: Option<usize>,
}

impl Hasher {
    /// For a message of this length.
    pub(super) fn new(algorithm: Algorithm, keys: &Keys, length: usize) -> Self {
        match algorithm {
            Algorithm::Hmac(hash) => Self::Hmac(
                keys.secrets()
                    .iter()
                    .map(|key| hmac::Context::with_key(&hmac::Key::new(hash.hmac(), key.reveal())))
                    .collect(),
            ),
            Algorithm::EcdsaP256 => Self::Sha256(Context::new(&SHA256)),
            Algorithm::Ed25519 => {
                Self::Whole(Whole { message: Vec::with_capacity(length), tried: 0, accepted: None })
            }
        }
    }

    /// Bound on the memory of a hasher.
    pub(super) fn bytes_at_most(algorithm: Algorithm, keys: &Keys, length: usize) -> usize {
        match algorithm {
            Algorithm::Hmac(_) => keys.secrets().len() * size_of::<hmac::Context>(),
            Algorithm::EcdsaP256 => 0,
            Algorithm::Ed25519 => length,
        }
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Hmac(contexts) => contexts.capacity() * size_of::<hmac::Context>(),
            Self::Sha256(_) => 0,
            Self::Whole(whole) => whole.message.capacity(),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Hmac(contexts) => contexts.iter_mut().for_each(|context| context.update(bytes)),
            Self::Sha256(context) => context.update(bytes),
            Self::Whole(whole) => whole.message.extend_from_slice(bytes),
        }
    }

    /// Tries the next pair of key and signature if that reads the whole message, which is complete.
    /// Returns `false` when none is left.
    pub(super) fn verify_next(&mut self, keys: &Keys, signatures: &[Vec<u8>]) -> bool {
        match self {
            Self::Hmac(_) | Self::Sha256(_) => false,
            Self::Whole(whole) => whole.verify_next(keys.public(), signatures),
        }
    }

    /// The last key that gives one of the signatures. Every key and every signature is tried.
    pub(super) fn accepted(self, keys: &Keys, signatures: &[Vec<u8>]) -> Option<usize> {
        let is_any = |check: &dyn Fn(&[u8]) -> bool| {
            signatures.iter().fold(false, |is_any, signature| check(signature) | is_any)
        };
        let accepted: Vec<bool> = match self {
            Self::Hmac(contexts) => {
                let tags = contexts.into_iter().map(hmac::Context::sign);
                let is_tag = |tag: &hmac::Tag, given: &[u8]| {
                    verify_slices_are_equal(tag.as_ref(), given).is_ok()
                };
                tags.map(|tag| is_any(&|given| is_tag(&tag, given))).collect()
            }
            Self::Sha256(context) => {
                let digest = context.finish();
                let is_by = |key: &PublicKey, given: &[u8]| is_ecdsa(&digest, key, given);
                keys.public().iter().map(|key| is_any(&|given| is_by(key, given))).collect()
            }
            Self::Whole(whole) => return whole.accepted,
        };
        accepted.iter().rposition(|is_accepted| *is_accepted)
    }
}

impl Whole {
    fn verify_next(&mut self, keys: &[PublicKey], signatures: &[Vec<u8>]) -> bool {
        let number = self.tried.checked_div(signatures.len()).unwrap_or_default();
        let signature = self.tried.checked_rem(signatures.len()).unwrap_or_default();
        let (Some(key), Some(signature)) = (keys.get(number), signatures.get(signature)) else {
            return false;
        };
        self.tried += 1;
        let key = UnparsedPublicKey::new(&ED25519, &key.bytes);
        if key.verify(&self.message, signature).is_ok() {
            self.accepted = Some(number);
        }
        true
    }
}

/// Whether a signature in either notation, ASN.1 or two numbers of 32 bytes, is that of a key.
fn is_ecdsa(digest: &digest::Digest, key: &PublicKey, given: &[u8]) -> bool {
    let algorithms: [&'static dyn VerificationAlgorithm; 2] =
        [&ECDSA_P256_SHA256_ASN1, &ECDSA_P256_SHA256_FIXED];
    algorithms.into_iter().any(|algorithm| {
        UnparsedPublicKey::new(algorithm, &key.bytes).verify_digest(digest, given).is_ok()
    })
}
