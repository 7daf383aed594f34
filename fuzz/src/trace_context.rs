//! The header fields `traceparent` and `tracestate`.

use hookgate::queue::TraceContext;

/// Maximum bytes and members of a `tracestate` in a job.
const MAX_STATE: usize = 512;
const MAX_MEMBERS: usize = 32;

/// A line is the `traceparent`, each further one a line of the `tracestate`. Jobs get both in a
/// form that is valid and stays as it is when it is read again.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let parent = lines.next().unwrap_or_default();
    let states: Vec<&[u8]> = lines.collect();
    let context = TraceContext::new([parent], states.iter().copied());
    assert_eq!(context.is_some(), passed_on(parent).is_some(), "{}", parent.escape_ascii());
    assert!(TraceContext::new([parent, parent], states.iter().copied()).is_none());
    let Some(context) = context else { return };
    let headers = context.as_json().as_object().expect("a map of header fields");
    let text = |name: &str| headers.get(name).map(|value| value.as_str().expect("a string"));
    let traceparent = text("traceparent").expect("a traceparent");
    assert_eq!(Some(traceparent), passed_on(parent).as_deref());
    assert!(context.caller().is_some(), "it is the span of a caller");
    let state = text("tracestate");
    if let Some(state) = state {
        check_state(state, &states);
    }
    assert_eq!(headers.len(), 1 + usize::from(state.is_some()));
    let again = TraceContext::new([traceparent.as_bytes()], state.map(str::as_bytes));
    assert_eq!(again.expect("a valid one").as_json(), context.as_json());
}

/// What jobs get of a `traceparent`, by the positions of its characters.
fn passed_on(parent: &[u8]) -> Option<String> {
    // What follows the four fields of a later version may be any text.
    let text = std::str::from_utf8(parent).ok()?;
    let fixed = text.get(..55).filter(|fixed| fixed.is_ascii())?;
    let fields = [&fixed[..2], &fixed[3..35], &fixed[36..52], &fixed[53..]];
    let are_dashes = [2, 35, 52].iter().all(|at| fixed.as_bytes()[*at] == b'-');
    let is_hex = |char: char| char.is_ascii_hexdigit() && !char.is_ascii_uppercase();
    let has_fields = are_dashes && fields.iter().all(|field| field.chars().all(is_hex));
    let is_zero = |field: &str| field.chars().all(|char| char == '0');
    let [version, trace, span, flags] = fields;
    if !has_fields || version == "ff" || is_zero(trace) || is_zero(span) {
        return None;
    }
    match (version, text.get(55..)?) {
        ("00", "") => Some(fixed.to_owned()),
        ("00", _) => None,
        (_, rest) if rest.is_empty() || rest.starts_with('-') => {
            let is_sampled = "13579bdf".contains(&flags[1..]);
            Some(format!("00-{trace}-{span}-{:02x}", u8::from(is_sampled)))
        }
        _ => None,
    }
}

/// The members are some of the caller's, in their order, each key once.
fn check_state(state: &str, lines: &[&[u8]]) {
    assert!((1..=MAX_STATE).contains(&state.len()), "{} bytes", state.len());
    let members: Vec<&str> = state.split(',').collect();
    assert!(members.len() <= MAX_MEMBERS, "{} members", members.len());
    let joined = lines.join(&b',');
    let mut given = joined.split(|byte| *byte == b',').map(|member| {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let begin = member.iter().position(|byte| !is_space(byte)).unwrap_or(member.len());
        let end = member.iter().rposition(|byte| !is_space(byte)).map_or(begin, |last| last + 1);
        &member[begin..end]
    });
    let mut keys = Vec::new();
    for member in members {
        assert!(given.any(|given| given == member.as_bytes()), "{member} is not the caller's");
        let (key, value) = member.split_once('=').expect("a key and a value");
        assert!(!keys.contains(&key), "{key} is there twice");
        assert!((1..=256).contains(&key.len()) && (1..=256).contains(&value.len()));
        assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte) && !b"=,".contains(&byte)));
        keys.push(key);
    }
}
