//! A session with Redis that is replaced whenever it is lost.

use super::QueueSettings;
use super::reason::reason;
use super::session::Session;
use crate::log_rate::LogRate;
use crate::pause::Pause;
use crate::supervisor::Supervisor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between attempts to connect. The first one after a loss is made at once.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection that is lost again and again is told of once in so long.
const LOSSES_LOGGED: Duration = Duration::from_secs(10);

/// The way to the present session.
#[derive(Debug, Clone)]
pub(super) struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    news: Arc<Mutex<News>>,
}

#[derive(Debug)]
struct News {
    /// Where the last session was, or where one is to be by the configuration.
    server: String,
    /// Why there is none.
    cause: String,
}

impl Link {
    /// Connects, and connects again, on the runtime of the caller, until every clone is dropped.
    pub(super) fn start(settings: &Arc<QueueSettings>, supervisor: &Supervisor) -> Self {
        let (sender, sessions) = watch::channel(None);
        let news = News { server: settings.servers(), cause: "not connected yet".to_owned() };
        let news = Arc::new(Mutex::new(news));
        let connecting = keep_connected(Arc::clone(settings), sender, Arc::clone(&news));
        tokio::spawn(supervisor.clone().watch("link", connecting));
        Self { sessions, news }
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
        lock(&self.news).cause.clone()
    }

    /// Where the last session was, or where one is to be by the configuration.
    pub(super) fn server(&self) -> String {
        lock(&self.news).server.clone()
    }
}

async fn keep_connected(
    settings: Arc<QueueSettings>,
    sender: watch::Sender<Option<Arc<Session>>>,
    news: Arc<Mutex<News>>,
) {
    let mut losses = LogRate::new(1, LOSSES_LOGGED);
    let mut pause = Pause::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let mut was_useful = false;
        let end = match Session::open(&settings).await {
            Ok((session, mut driver)) => {
                let server = session.server();
                tracing::debug!(server, "connected to Redis");
                lock(&news).server.clone_from(&server);
                sender.send_replace(Some(Arc::clone(&session)));
                let end = tokio::select! {
                    end = session.ended(&mut driver, settings.patience()) => end,
                    () = sender.closed() => return,
                };
                sender.send_replace(None);
                if losses.allows() {
                    tracing::warn!(server, cause = end, "connection to Redis lost");
                }
                was_useful = session.is_useful();
                end
            }
            Err(error) => reason(&error),
        };
        tracing::debug!(cause = end, "no connection to Redis");
        lock(&news).cause = end;
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

fn lock(news: &Mutex<News>) -> MutexGuard<'_, News> {
    news.lock().unwrap_or_else(PoisonError::into_inner)
}
