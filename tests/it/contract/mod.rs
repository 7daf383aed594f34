//! Promises to others: the API and its document, deployment files, and the rules of the code.

mod accept;
mod architecture;
mod dependencies;
mod deployment;
mod endpoints_page;
mod fitting_page;
mod fuzz_corpus;
mod openapi;
pub(crate) mod page_examples;
mod reference;
