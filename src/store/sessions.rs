//! Sessions that were asked for and not begun: each waits behind a token that is good once, for a minute.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cricket_proto::runtime::{AttachRequest, ExecRequest, PortForwardRequest};

use crate::error::{Error, Kind, Result};
use crate::ids::random_hex;
use crate::sync::Mutex;

/// How long a token is good.
pub const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// How many may wait; one more is refused.
const MAX_PENDING: usize = 1000;

/// What a client may begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Session {
    /// A command in a container, whose id is complete.
    Exec(ExecRequest),
    /// The streams of a container, whose id is complete.
    Attach(AttachRequest),
    /// Ports of a pod sandbox, whose id is complete.
    PortForward(PortForwardRequest),
}

impl Session {
    /// The first part of its path.
    fn name(&self) -> &'static str {
        match self {
            Session::Exec(_) => "exec",
            Session::Attach(_) => "attach",
            Session::PortForward(_) => "portforward",
        }
    }
}

/// Whoever lets clients in.
pub trait Door: Send + Sync {
    /// Opens it, or sees that it is open; returns where: `http://127.0.0.1:40001`. Stays open at least until
    /// [`Sessions::open_until`].
    fn open(self: Arc<Self>) -> Result<String>;
}

/// The sessions that wait.
#[derive(Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pending: HashMap<String, Pending>,
    open_until: Option<Instant>,
    door: Option<Arc<dyn Door>>,
}

struct Pending {
    session: Session,
    until: Instant,
}

impl Sessions {
    /// From now on sessions are let in here; `None`: no more.
    pub fn set_door(&self, door: Option<Arc<dyn Door>>) {
        let old = {
            let mut inner = self.inner.lock();
            if door.is_none() {
                inner.pending.clear();
            }
            std::mem::replace(&mut inner.door, door)
        };
        // Outside the lock: its end may be long.
        drop(old);
    }

    /// Lets a session wait; returns the URL that begins it.
    ///
    /// # Errors
    /// `ResourceExhausted` when too many wait; `Unavailable` without a door.
    pub fn offer(&self, session: Session) -> Result<String> {
        let token = random_hex()?;
        let path = format!("{}/{token}", session.name());
        let door = self.wait(&token, session, Instant::now())?;
        // With the token in place, so that the door does not close in between.
        match door.open() {
            Ok(place) => Ok(format!("{place}/{path}")),
            Err(e) => {
                self.inner.lock().pending.remove(&token);
                Err(e)
            }
        }
    }

    fn wait(&self, token: &str, session: Session, now: Instant) -> Result<Arc<dyn Door>> {
        let mut inner = self.inner.lock();
        let Some(door) = inner.door.clone() else {
            return Err(Error::new(Kind::Unavailable, "the streaming server does not run"));
        };
        inner.pending.retain(|_, pending| pending.until > now);
        if inner.pending.len() >= MAX_PENDING {
            let why = format!("{MAX_PENDING} streaming sessions were asked for and not begun: try again in a minute");
            return Err(Error::new(Kind::ResourceExhausted, why));
        }
        let until = now + TOKEN_LIFE;
        inner.open_until = Some(until);
        inner.pending.insert(token.to_owned(), Pending { session, until });
        Ok(door)
    }

    /// The session of this path, `/exec/<token>`; nobody else gets it.
    pub fn take(&self, path: &str) -> Option<Session> {
        self.take_at(path, Instant::now())
    }

    fn take_at(&self, path: &str, now: Instant) -> Option<Session> {
        let (name, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut inner = self.inner.lock();
        let pending = inner.pending.remove(token)?;
        (pending.until > now && pending.session.name() == name).then_some(pending.session)
    }

    /// Until when clients may come: a minute after the last token, used or not. `None`: nobody may come.
    pub fn open_until(&self) -> Option<Instant> {
        self.inner.lock().open_until
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sessions", self.inner.lock().pending.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Open;
    impl Door for Open {
        fn open(self: Arc<Self>) -> Result<String> {
            Ok("http://x".into())
        }
    }

    struct Stuck;
    impl Door for Stuck {
        fn open(self: Arc<Self>) -> Result<String> {
            Err(Error::internal("no"))
        }
    }

    fn exec() -> Session {
        Session::Exec(ExecRequest { container_id: "c".into(), ..Default::default() })
    }

    fn offered(sessions: &Sessions) -> String {
        sessions.offer(exec()).unwrap().strip_prefix("http://x").unwrap().to_owned()
    }

    #[test]
    fn a_token_is_good_once_for_its_own_path() {
        let sessions = Sessions::default();
        assert_eq!(sessions.offer(exec()).map_err(|e| e.kind()), Err(Kind::Unavailable));
        sessions.set_door(Some(Arc::new(Open)));
        let path = offered(&sessions);
        assert_eq!(sessions.take(&path), Some(exec()));
        assert_eq!(sessions.take(&path), None);
        let wrong = offered(&sessions).replace("/exec/", "/attach/");
        assert_eq!((sessions.take(&wrong), sessions.take("/exec/"), sessions.take("/")), (None, None, None));
        let path = offered(&sessions);
        sessions.set_door(None);
        assert_eq!(sessions.take(&path), None);
    }

    #[test]
    fn a_token_ends_with_its_minute() {
        let sessions = Sessions::default();
        sessions.set_door(Some(Arc::new(Open)));
        let path = offered(&sessions);
        assert_eq!(sessions.take_at(&path, Instant::now() + TOKEN_LIFE), None);
        assert!(sessions.open_until().unwrap() > Instant::now());
    }

    #[test]
    fn only_so_many_wait() {
        let sessions = Sessions::default();
        sessions.set_door(Some(Arc::new(Open)));
        let paths: Vec<_> = (0..MAX_PENDING).map(|_| offered(&sessions)).collect();
        assert_eq!(sessions.offer(exec()).map_err(|e| e.kind()), Err(Kind::ResourceExhausted));
        sessions.take(&paths[0]).unwrap();
        offered(&sessions);
        let later = Instant::now() + TOKEN_LIFE;
        assert!(sessions.wait("t", exec(), later).is_ok(), "the old ones have made room");
    }

    #[test]
    fn a_door_that_does_not_open_leaves_no_token() {
        let sessions = Sessions::default();
        sessions.set_door(Some(Arc::new(Stuck)));
        assert_eq!(sessions.offer(exec()).map_err(|e| e.kind()), Err(Kind::Internal));
        assert_eq!(format!("{sessions:?}"), "0 sessions");
    }
}
