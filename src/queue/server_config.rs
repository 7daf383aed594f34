//! `CONFIG GET`, where the user of Redis may use it: a narrow user may not, because it shows passwords too.

use super::session::{CallError, Session};
use fred::types::Value;
use std::collections::HashMap;

/// Whether it may be used, without trying: each refusal is counted by Redis, and kept in its ACL LOG. Null before Redis 7.0.
const MAY_USE: &str = "local check = redis.acl_check_cmd
if not check then return nil end
local is_known, is_allowed = pcall(check, 'CONFIG', 'GET', 'save')
return is_known and is_allowed and 1 or 0";

/// The values of these keys; `None` where it may not be used.
pub(super) async fn get(
    session: &Session,
    keys: &[&'static str],
) -> Result<Option<HashMap<String, String>>, CallError> {
    if !may_use(session).await? {
        return Ok(None);
    }
    let mut values = HashMap::new();
    for key in keys {
        let words = ["GET", key].map(Value::from_static_str).to_vec();
        match session.call::<HashMap<String, String>>("CONFIG", words).await {
            Ok(found) => values.extend(found),
            Err(CallError::Refused(error)) => {
                if is_switched_off(error.details()) {
                    session.set_may_use_config(false);
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(values))
}

async fn may_use(session: &Session) -> Result<bool, CallError> {
    if let Some(may_use) = session.may_use_config() {
        return Ok(may_use);
    }
    let words = [MAY_USE, "0"].map(Value::from_static_str).to_vec();
    let may_use = match session.call::<Value>("EVAL", words).await {
        Ok(reply) => reply.as_i64() != Some(0),
        // Then it can only be tried.
        Err(CallError::Refused(_)) => true,
        Err(error) => return Err(error),
    };
    session.set_may_use_config(may_use);
    Ok(may_use)
}

/// Whether a command is refused to this user, or is none of this server's.
pub(super) fn is_switched_off(details: &str) -> bool {
    matches!(details.split(' ').next(), Some("NOPERM" | "ERR"))
}
