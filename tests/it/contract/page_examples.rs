//! The blocks of code of a page, which tests run.

use testkit::Config;
use toml::Table;

/// The blocks of code under a heading, each with its language.
pub(crate) fn blocks(page: &'static str, heading: &str) -> Vec<(&'static str, &'static str)> {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).expect("the heading exists");
    let section = section.split("\n#").next().expect("a section");
    let parts = section.split("```").skip(1).step_by(2);
    parts.map(|block| block.split_once('\n').expect("a language")).collect()
}

/// Sets every key of a configuration. Tables below a section are set as a whole.
pub(crate) fn set_all(config: &mut Config, text: &str) {
    for (section, keys) in text.parse::<Table>().expect("TOML") {
        for (key, value) in keys.as_table().expect("a section") {
            config.set(&format!("{section}.{key}"), value.clone());
        }
    }
}
