//! RESP2, the protocol of Redis: parses requests and finds where requests and replies end.

use std::collections::VecDeque;
use std::mem;

/// Why some bytes do not begin with a whole request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// More bytes may complete it.
    Short,
    /// No further bytes can complete it.
    Malformed,
}

/// The request at the beginning: its arguments and its length.
pub fn request(bytes: &[u8]) -> Result<(Vec<&[u8]>, usize), Stop> {
    let mut reader = Reader { bytes, at: 0 };
    let count = reader.head(b'*')?.ok_or(Stop::Malformed)?;
    let mut arguments = Vec::new();
    for _ in 0..count {
        let length = reader.head(b'$')?.ok_or(Stop::Malformed)?;
        arguments.push(reader.bulk(length)?);
    }
    Ok((arguments, reader.at))
}

/// The length of the reply at the beginning.
pub fn reply_length(bytes: &[u8]) -> Result<usize, Stop> {
    let mut reader = Reader { bytes, at: 0 };
    let mut missing = 1;
    while missing > 0 {
        missing -= 1;
        match reader.kind()? {
            b'+' | b'-' | b':' => {
                reader.line()?;
            }
            b'$' => {
                if let Some(length) = reader.head(b'$')? {
                    reader.bulk(length)?;
                }
            }
            b'*' => missing += reader.head(b'*')?.unwrap_or(0),
            _ => return Err(Stop::Malformed),
        }
    }
    Ok(reader.at)
}

/// A request in its wire format.
pub fn encode(arguments: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments.iter().map(AsRef::as_ref) {
        bytes.extend(format!("${}\r\n", argument.len()).into_bytes());
        bytes.extend(argument);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Whether a request runs a script for a job.
pub fn is_script_call(arguments: &[&[u8]]) -> bool {
    let name = arguments.first().map(|name| name.to_ascii_uppercase());
    name.is_some_and(|name| name.starts_with(b"EVAL") || name.starts_with(b"FCALL"))
        && !is_probe(arguments)
}

/// Whether a request runs one of the probe scripts, by which the health check asks Redis every
/// second whether jobs would be refused.
pub fn is_probe(arguments: &[impl AsRef<[u8]>]) -> bool {
    let beginnings =
        ["-- Lists the commands that adding jobs needs", "-- Asks whether jobs would be refused"];
    let script = arguments.get(1).map(AsRef::as_ref);
    script.is_some_and(|script| beginnings.iter().any(|each| script.starts_with(each.as_bytes())))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn kind(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Short)
    }

    /// Reads up to the end of the line and skips it.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or(Stop::Short)?;
        self.at += end + 2;
        Ok(&rest[..end])
    }

    /// Reads a line of this kind with a number; `None` is the nil of RESP2.
    fn head(&mut self, kind: u8) -> Result<Option<usize>, Stop> {
        if self.kind()? != kind {
            return Err(Stop::Malformed);
        }
        match &self.line()?[1..] {
            b"-1" => Ok(None),
            number => {
                let number = std::str::from_utf8(number).map_err(|_| Stop::Malformed)?;
                number.parse().map(Some).map_err(|_| Stop::Malformed)
            }
        }
    }

    fn bulk(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + length;
        let ended = self.bytes.get(end..end + 2).ok_or(Stop::Short)?;
        if ended != b"\r\n" {
            return Err(Stop::Malformed);
        }
        let bulk = &self.bytes[self.at..end];
        self.at = end + 2;
        Ok(bulk)
    }
}

/// Follows both sides of a connection.
#[derive(Debug, Default)]
pub struct Talk {
    requests: Vec<u8>,
    replies: Vec<u8>,
    /// For each request without a reply, whether it runs a script.
    unanswered: VecDeque<bool>,
    /// The bytes are not RESP2.
    is_lost: bool,
}

impl Talk {
    /// Reads what the client has sent. Returns whether these bytes complete a script call.
    pub fn read_client(&mut self, bytes: &[u8]) -> bool {
        self.requests.extend(bytes);
        let mut requests = mem::take(&mut self.requests);
        let (mut at, mut has_script) = (0, false);
        loop {
            match request(&requests[at..]) {
                Ok((arguments, length)) => {
                    let is_script = is_script_call(&arguments);
                    self.unanswered.push_back(is_script);
                    has_script |= is_script;
                    at += length;
                }
                Err(stop) => {
                    self.is_lost |= stop == Stop::Malformed;
                    break;
                }
            }
        }
        requests.drain(..if self.is_lost { requests.len() } else { at });
        self.requests = requests;
        has_script
    }

    /// Reads what Redis has sent. Returns whether these bytes complete the reply to a script call.
    pub fn read_redis(&mut self, bytes: &[u8]) -> bool {
        self.replies.extend(bytes);
        let mut has_script = false;
        loop {
            match reply_length(&self.replies) {
                Ok(length) => {
                    self.replies.drain(..length);
                    has_script |= self.unanswered.pop_front().unwrap_or_default();
                }
                Err(stop) => {
                    self.is_lost |= stop == Stop::Malformed;
                    break;
                }
            }
        }
        if self.is_lost {
            self.replies.clear();
        }
        has_script
    }

    /// Whether every whole request has its reply.
    pub fn is_answered(&self) -> bool {
        self.unanswered.is_empty() && !self.is_lost
    }
}
