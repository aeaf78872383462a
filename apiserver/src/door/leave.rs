//! Leaving a connection so that the last answer arrives.
//!
//! A socket that is closed while bytes of its peer are unread sends a reset, and a reset throws away what the peer has not read yet: a client whose body is too
//! large would see a broken pipe instead of its 413. So the own direction is closed first, and what still comes is read and thrown away (RFC 9112, section 9.6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// From the last byte that came.
const SILENCE: Duration = Duration::from_secs(2);
/// Altogether.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a stream is on its way out.
#[derive(Debug, Default)]
pub(super) enum Leave {
    #[default]
    Staying,
    /// Said; what still comes is thrown away.
    Listening {
        ends_at: Instant,
        silence: Pin<Box<Sleep>>,
    },
    Gone,
}

impl Leave {
    /// Ready when the peer has closed its direction too, or was waited for long enough.
    ///
    /// # Errors
    /// When the own direction cannot be closed.
    pub(super) fn poll<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Staying => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                    let now = Instant::now();
                    *self = Self::Listening { ends_at: now + PATIENCE, silence: Box::pin(tokio::time::sleep_until(now + SILENCE)) };
                }
                Self::Listening { ends_at, silence } => {
                    let mut bytes = [0; 8192];
                    let mut buffer = ReadBuf::new(&mut bytes);
                    match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                            silence.as_mut().reset((*ends_at).min(Instant::now() + SILENCE))
                        }
                        Poll::Ready(_) => *self = Self::Gone,
                        Poll::Pending => {
                            ready!(silence.as_mut().poll(context));
                            *self = Self::Gone;
                        }
                    }
                    if matches!(self, Self::Listening { ends_at, .. } if *ends_at <= Instant::now()) {
                        *self = Self::Gone;
                    }
                }
                Self::Gone => return Poll::Ready(Ok(())),
            }
        }
    }
}
