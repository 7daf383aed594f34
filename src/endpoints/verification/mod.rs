//! Verification of deliveries, described by data.
//!
//! A [`Verification`] is read from a document or from the settings, with the same members. It says
//! what of a request is signed, by which algorithm, where the signature and the time are, and where
//! the id of the delivery is. A preset in [`PRESETS`] is such a description with a name; the code
//! that checks knows no provider.
//!
//! [`Verification::verify`] checks a whole request. [`Verification::begin`] does the same in steps,
//! so that a task can yield while a large body is hashed. Nothing here knows the connection, the
//! queue or the index.

mod answer;
mod body_path;
mod check;
mod credential;
mod description;
mod explanation;
mod extra_bytes;
mod form;
mod from_document;
mod from_settings;
mod handshake;
mod hasher;
mod hints;
mod identity;
mod json_members;
mod jwt;
mod keys;
mod members;
mod message;
mod model;
mod preset;
mod presets;
mod refusal;
mod request;
mod rules;
mod schemes;
mod signature;
mod template;
mod time;
mod url_form;

#[cfg(test)]
mod tests;

pub use crate::endpoints::verification::answer::{HandshakeAnswer, UnfitHandshake};
pub use crate::endpoints::verification::check::{Checking, Verified};
pub use crate::endpoints::verification::explanation::{Explanation, Preview, TimeOffset};
pub use crate::endpoints::verification::from_settings::{NamedVerification, read_named};
pub use crate::endpoints::verification::identity::Digest;
pub use crate::endpoints::verification::members::Malformed;
pub use crate::endpoints::verification::model::{Status, Verification};
pub use crate::endpoints::verification::preset::{
    Answer, Condition, DeliveryId, Handshake, Preset, Value,
};
pub use crate::endpoints::verification::presets::PRESETS;
pub use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
pub use crate::endpoints::verification::request::{DeliveryRequest, Field, HeaderFields};
