//! Reads settings: a section returns typed values and collects every fault.
//!
//! Each part of the program reads its own section with a [`Section`]. A key that no part reads is
//! an unknown key. A value from the environment takes precedence over one from the file.

mod environment;
mod fault;
mod field_path;
mod networks;
mod raw_values;
mod reader;
mod secret;
mod section;
mod spelling;

pub use crate::settings::fault::Fault;
pub(crate) use crate::settings::fault::line;
pub use crate::settings::field_path::path_fault;
pub use crate::settings::networks::{ClientNetwork, Network, Networks};
pub use crate::settings::raw_values::RawValues;
pub use crate::settings::reader::SettingsReader;
pub use crate::settings::secret::Secret;
pub use crate::settings::section::Section;
pub use crate::settings::spelling::nearest;
