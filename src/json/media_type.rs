//! Media types of JSON.

/// Whether a media type, without its parameters, is `application/json` or `application/*+json`.
pub fn is_json(essence: &str) -> bool {
    essence.eq_ignore_ascii_case("application/json") || is_other_json(essence)
}

fn is_other_json(essence: &str) -> bool {
    let essence = essence.to_ascii_lowercase();
    essence.starts_with("application/") && essence.ends_with("+json")
}
