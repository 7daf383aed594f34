//! A session with Redis that is replaced whenever it is lost.

use super::QueueSettings;
use super::session::Session;
use crate::pause::Pause;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between attempts to connect. The first one after a loss is made at once.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The way to the present session.
#[derive(Debug, Clone)]
pub(super) struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    /// Why there is none.
    cause: Arc<Mutex<String>>,
}

impl Link {
    /// Connects, and connects again, on the runtime of the caller, until every clone is dropped.
    pub(super) fn start(settings: &Arc<QueueSettings>) -> Self {
        let (sender, sessions) = watch::channel(None);
        let cause = Arc::new(Mutex::new("not connected yet".to_owned()));
        tokio::spawn(keep_connected(Arc::clone(settings), sender, Arc::clone(&cause)));
        Self { sessions, cause }
    }

    /// The present session, or the next one if it is there by then. One that was given up is not present.
    pub(super) async fn session(&mut self, latest: Instant) -> Option<Arc<Session>> {
        let is_present = |session: &Option<Arc<Session>>| {
            session.as_ref().is_some_and(|session| !session.is_given_up())
        };
        let present = self.sessions.wait_for(is_present);
        let session = tokio::time::timeout_at(latest, present).await.ok()?.ok()?;
        session.clone()
    }

    pub(super) fn is_up(&self) -> bool {
        self.sessions.borrow().as_ref().is_some_and(|session| !session.is_given_up())
    }

    /// Why there is no session.
    pub(super) fn cause(&self) -> String {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn keep_connected(
    settings: Arc<QueueSettings>,
    sender: watch::Sender<Option<Arc<Session>>>,
    cause: Arc<Mutex<String>>,
) {
    let mut pause = Pause::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let mut was_useful = false;
        let end = match Session::open(&settings).await {
            Ok((session, mut driver)) => {
                sender.send_replace(Some(Arc::clone(&session)));
                let end = tokio::select! {
                    end = session.ended(&mut driver, settings.patience()) => end,
                    () = sender.closed() => return,
                };
                sender.send_replace(None);
                was_useful = session.is_useful();
                end
            }
            Err(error) => readable(error.details()).to_owned(),
        };
        tracing::debug!(cause = end, "no connection to Redis");
        *cause.lock().unwrap_or_else(PoisonError::into_inner) = end;
        if was_useful {
            pause.reset();
            continue;
        }
        tokio::select! {
            () = pause.wait() => {}
            () = sender.closed() => return,
        }
    }
}

/// The message within what fred says of an error of the operating system:
/// `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
fn readable(details: &str) -> &str {
    let message = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    message.map_or(details, |(message, _)| message)
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn an_error_of_the_system_is_told_in_its_own_words() {
        let refused = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        assert_eq!(readable(refused), "Connection refused");
        assert_eq!(readable("no answer in time"), "no answer in time");
    }
}
