//! Who may look into the memory of the process, where secrets are.

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Whether debuggers of the same user may attach, and whether a crash leaves a core. It may be set at any time.
#[cfg(target_os = "linux")]
pub fn make_dumpable(is_dumpable: bool) -> std::io::Result<()> {
    let behavior =
        if is_dumpable { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(set_dumpable_behavior(behavior)?)
}

/// Only Linux has this.
#[cfg(not(target_os = "linux"))]
pub fn make_dumpable(_: bool) -> std::io::Result<()> {
    Ok(())
}
