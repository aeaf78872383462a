//! What is wanted of a running task: level-triggered, the newest word counts.

use tokio::sync::watch;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// Move data.
    Run,
    /// Hold still at the next batch, keeping the cut and all transactions open.
    Pause,
    /// End; what is not committed is rolled back.
    Stop,
}

/// The task's end of the wish.
#[derive(Debug, Clone)]
pub struct Control(watch::Receiver<Desired>);

/// The wish was [`Desired::Stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run was stopped")]
pub struct Stopped;

impl Control {
    /// A wish that can be changed and the task's end of it.
    pub fn channel() -> (watch::Sender<Desired>, Self) {
        let (sender, receiver) = watch::channel(Desired::Run);
        (sender, Self(receiver))
    }

    /// What is wanted now.
    pub fn desired(&self) -> Desired {
        *self.0.borrow()
    }

    /// Returns while running is wanted, waits while a pause is, fails once a stop is. A dropped sender means stop.
    pub async fn checkpoint(&mut self) -> Result<(), Stopped> {
        loop {
            match self.desired() {
                Desired::Run => return Ok(()),
                Desired::Stop => return Err(Stopped),
                Desired::Pause => self.0.changed().await.map_err(|_| Stopped)?,
            }
        }
    }

    /// The next wish, once it changes; none once nobody can change it any more.
    pub async fn changed(&mut self) -> Option<Desired> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }

    /// Returns once a stop is wanted.
    pub async fn stopped(&mut self) {
        // An error means that the sender is gone, which means stop too.
        let _ = self.0.wait_for(|desired| *desired == Desired::Stop).await;
    }
}
