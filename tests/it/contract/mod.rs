//! What is promised outside: the API, its document, deployment files, the rules of the code.

mod accept;
mod architecture;
mod deployment;
mod fuzz_corpus;
mod openapi;
