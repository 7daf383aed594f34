//! Why verifications refuse a delivery: for the access log, and for the preview of an address.

use crate::endpoints::verification::{Refusal, Verification};
use crate::ingress::rejection::Rejection;
use crate::triggers::{Address, LastRefusal};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// The refusals of one delivery, each with its verification.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<(Arc<Verification>, Refusal)>);

impl Refusals {
    pub(super) fn add(&mut self, verification: &Arc<Verification>, refusal: Refusal) {
        self.0.push((Arc::clone(verification), refusal));
    }

    /// The answer to a delivery that no verification accepts.
    pub(super) fn rejection(&self) -> Rejection {
        if self.0.iter().any(|(_, refusal)| refusal.is_stale()) {
            Rejection::StaleSignature
        } else {
            Rejection::InvalidSignature
        }
    }

    /// Keeps them for the preview of the address.
    pub(super) fn keep(&self, address: &Address, now: SystemTime) {
        for (verification, refusal) in &self.0 {
            let last = LastRefusal { at: now, refusal: refusal.clone() };
            address.last_refusals.set(verification.identity(), last);
        }
    }
}

/// For the access log: `github wrong_signature, stripe missing: stripe-signature`, each once.
impl fmt::Display for Refusals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.0.iter().map(|(each, refusal)| format!("{} {refusal}", each.scheme()));
        let texts: BTreeSet<String> = texts.collect();
        for (number, text) in texts.iter().enumerate() {
            formatter.write_str(if number > 0 { ", " } else { "" })?;
            formatter.write_str(text)?;
        }
        Ok(())
    }
}
