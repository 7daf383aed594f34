//! Access to the memory of the process, which holds secrets.

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Allows or forbids debuggers of the same user to attach, and a crash to leave a core dump. It may
/// be called at any time.
#[cfg(target_os = "linux")]
pub fn make_dumpable(is_dumpable: bool) -> std::io::Result<()> {
    let behavior =
        if is_dumpable { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(set_dumpable_behavior(behavior)?)
}

/// Does nothing: only Linux has this setting.
#[cfg(not(target_os = "linux"))]
pub fn make_dumpable(_: bool) -> std::io::Result<()> {
    Ok(())
}
