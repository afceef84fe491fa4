//! Asks the leader for files and keeps the uploads going.
//!
//! Up to twice as many jobs as uploads at a time are asked for, so that the
//! leader records them in few mutations and no upload slot waits for an
//! answer. Jobs that are here when the gate closes wait here.

use crate::MoverError;
use crate::attempts::{Active, fail_own};
use crate::commit::End;
use crate::upload::Uploader;
use lagan_types::Time;
use lagan_types::message::ArchiveJob;
use lagan_types::op::ArchiveFail;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between questions while the leader does not answer, at most.
const LEADER_AWAY: Duration = Duration::from_secs(5);

/// The upload loop's state.
pub(crate) struct Queue {
    uploader: Arc<Uploader>,
    active: Arc<Active>,
    ends: mpsc::Sender<End>,
    waiting: VecDeque<ArchiveJob>,
    running: JoinSet<()>,
    ask_at: Instant,
    unanswered: u32,
}

impl Queue {
    pub fn new(uploader: Arc<Uploader>, active: Arc<Active>, ends: mpsc::Sender<End>) -> Self {
        Queue {
            uploader,
            active,
            ends,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            ask_at: Instant::now(),
            unanswered: 0,
        }
    }

    /// Runs until it is dropped, which ends its uploads.
    pub async fn run(mut self) {
        self.fail_leftovers().await;
        let uploader = self.uploader.clone();
        loop {
            self.start_waiting();
            if self.wants_more() {
                self.ask().await;
                continue;
            }
            // also wakes up by itself: the gate may have opened just now
            let wake_at = Instant::now() + uploader.options.poll;
            tokio::select! {
                Some(_) = self.running.join_next() => {}
                () = tokio::time::sleep_until(wake_at) => {}
                () = uploader.gate.opened(), if !uploader.gate.is_open() => {}
            }
        }
    }

    /// Attempts from before the start: their uploader, this node, ended.
    async fn fail_leftovers(&self) {
        loop {
            match fail_own(&*self.uploader.meta, &self.active, Duration::ZERO).await {
                Ok(0) => return,
                Ok(count) => return tracing::info!(count, "uploads of before the start repeat"),
                Err(error) => {
                    tracing::debug!(%error, "attempts of before the start");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn start_waiting(&mut self) {
        while self.running.len() < self.uploader.options.uploads && self.uploader.gate.is_open() {
            let Some(job) = self.waiting.pop_front() else {
                return;
            };
            let (uploader, ends) = (self.uploader.clone(), self.ends.clone());
            self.running.spawn(async move {
                let end = work(&uploader, job).await;
                // closed only when the mover ends; the attempt stays recorded
                let _ = ends.send(end).await;
            });
        }
    }

    fn wants_more(&self) -> bool {
        let few = self.waiting.len() * 2 <= self.uploader.options.uploads;
        few && self.uploader.gate.is_open() && Instant::now() >= self.ask_at && self.room() > 0
    }

    fn room(&self) -> usize {
        (self.uploader.options.uploads * 2).saturating_sub(self.waiting.len() + self.running.len())
    }

    async fn ask(&mut self) {
        let slots = u32::try_from(self.room()).unwrap_or(u32::MAX);
        match self.uploader.meta.jobs(slots).await {
            Ok(jobs) => {
                self.unanswered = 0;
                if (jobs.len() as u64) < u64::from(slots) {
                    self.ask_at = Instant::now() + self.uploader.options.poll;
                }
                for job in jobs {
                    self.active.insert(job.attempt);
                    self.waiting.push_back(job);
                }
            }
            Err(error) => {
                self.unanswered = self.unanswered.saturating_add(1);
                tracing::debug!(%error, "ask for files to archive");
                let pause = self.uploader.options.poll.saturating_mul(self.unanswered);
                self.ask_at = Instant::now() + pause.min(LEADER_AWAY);
            }
        }
        while self.running.try_join_next().is_some() {}
    }
}

/// Uploads one file; how it ended.
async fn work(uploader: &Uploader, job: ArchiveJob) -> End {
    let error = match uploader.upload(&job).await {
        Ok(finish) => return End::Finish(finish),
        Err(error) => error,
    };
    let delay = match error {
        MoverError::Changed => Duration::ZERO,
        _ => uploader.retry_after(job.ino),
    };
    match &error {
        MoverError::Changed => tracing::debug!(ino = %job.ino, "file changed before its upload"),
        error => tracing::warn!(ino = %job.ino, key = job.key, %error, ?delay, "upload failed"),
    }
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    End::Fail(ArchiveFail {
        ino: job.ino,
        version: job.version,
        attempt: job.attempt,
        key: job.key,
        retry_at: Time::from_millis(uploader.meta.now_ms().saturating_add(delay_ms)),
    })
}
