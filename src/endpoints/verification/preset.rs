//! What a row of the table of presets says.

/// A description with a name.
#[derive(Debug)]
pub struct Preset {
    pub name: &'static str,
    /// The provider's own documentation.
    pub page: &'static str,
    pub scheme: &'static str,
    /// The members of the description.
    pub members: &'static [(&'static str, Value)],
    /// Where the id of a delivery is that stays the same when a delivery is repeated.
    pub delivery_id: DeliveryId,
    /// What precedes a secret and is not part of it.
    pub secret_prefix: &'static str,
    pub handshakes: &'static [Handshake],
}

/// The value of a member.
#[derive(Debug)]
pub enum Value {
    Text(&'static str),
    List(&'static [&'static str]),
}

/// Where the id of a delivery is.
#[derive(Debug, Clone, Copy)]
pub enum DeliveryId {
    None,
    /// The header field of `idHeader`.
    Signed,
    Header(&'static str),
    Body(&'static str),
}

/// A request that asks for an answer and is not a delivery.
#[derive(Debug)]
pub struct Handshake {
    /// Whether it is answered only after a right signature.
    pub is_signed: bool,
    pub method: &'static str,
    /// All of them hold.
    pub conditions: &'static [Condition],
    pub answer: Answer,
}

/// What a request has to be like to be a handshake. Paths are those of the body.
#[derive(Debug)]
pub enum Condition {
    BodyIs(&'static str, &'static str),
    BodyLacks(&'static str),
    /// The body is an object with this member only.
    BodyIsOnly(&'static str),
    QueryIs(&'static str, &'static str),
    /// The query parameter is the `verifyToken`.
    QueryIsToken(&'static str),
}

/// The answer to a handshake.
#[derive(Debug)]
pub enum Answer {
    /// A member of the body, as text.
    BodyText(&'static str),
    /// A member of the body, as JSON under the same name.
    BodyJson(&'static str),
    /// A query parameter, as text.
    QueryText(&'static str),
    /// A member of the body and its HMAC by the secret that accepted, as JSON under two names.
    Proof {
        path: &'static str,
        plain: &'static str,
        proof: &'static str,
    },
    Json(&'static str),
    /// Status 204.
    Empty,
}
