//! Files that the process reads and writes: bounded calls, text, watched files, and the files with
//! certificate authorities and client certificates.

pub mod file_access;
pub mod pem_certificates;
pub mod text_file;
pub mod tls_identity;
pub mod tls_roots;
pub mod watched_file;
