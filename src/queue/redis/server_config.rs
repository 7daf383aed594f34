//! `CONFIG GET`, if the Redis user may use it. A restricted user may not, because it reveals
//! passwords too.

use crate::queue::redis::connection::{CallError, RedisConnection};
use fred::types::Value;
use std::collections::HashMap;

/// A script that checks whether the user may use `CONFIG GET`. It does not execute the command,
/// because Redis counts each refusal and adds it to its ACL LOG. The reply is null before Redis
/// 7.0.
const MAY_USE: &str = "local check = redis.acl_check_cmd
if not check then return nil end
local is_known, is_allowed = pcall(check, 'CONFIG', 'GET', 'save')
return is_known and is_allowed and 1 or 0";

/// The values of these keys; `None` if the user may not use `CONFIG GET`.
pub(in crate::queue) async fn get(
    connection: &RedisConnection,
    keys: &[&'static str],
) -> Result<Option<HashMap<String, String>>, CallError> {
    if !may_use(connection).await? {
        return Ok(None);
    }
    let mut values = HashMap::new();
    for key in keys {
        let arguments = ["GET", key].map(Value::from_static_str).to_vec();
        match connection.call::<HashMap<String, String>>("CONFIG", arguments).await {
            Ok(found) => values.extend(found),
            Err(CallError::Refused(error)) => {
                if is_switched_off(error.details()) {
                    connection.set_may_use_config(false);
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(values))
}

async fn may_use(connection: &RedisConnection) -> Result<bool, CallError> {
    if let Some(may_use) = connection.may_use_config() {
        return Ok(may_use);
    }
    let arguments = [MAY_USE, "0"].map(Value::from_static_str).to_vec();
    let may_use = match connection.call::<Value>("EVAL", arguments).await {
        Ok(reply) => reply.as_i64() != Some(0),
        // If the check is refused, only CONFIG GET itself can show it.
        Err(CallError::Refused(_)) => true,
        Err(error) => return Err(error),
    };
    connection.set_may_use_config(may_use);
    Ok(may_use)
}

/// Whether an error means that this user may not use the command, or that the server does not have
/// it.
pub(in crate::queue) fn is_switched_off(details: &str) -> bool {
    matches!(details.split(' ').next(), Some("NOPERM" | "ERR"))
}
