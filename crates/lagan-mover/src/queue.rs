//! Asks the leader for files and keeps the uploads going.
//!
//! More jobs than uploads at a time are kept here, and new ones are asked for
//! while uploads run: the leader records them in few mutations, and no upload
//! slot waits for an answer. Their number follows the rate: it doubles when uploads
//! had to wait for jobs, and falls to the least when an upload failed. Jobs that are
//! here when the gate closes wait here.

use crate::MoverError;
use crate::attempts::{Active, fail_own};
use crate::commit::End;
use crate::metrics::METRICS;
use crate::upload::Uploader;
use lagan_types::Time;
use lagan_types::message::ArchiveJob;
use lagan_types::op::ArchiveFail;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Longest pause between questions while the leader does not answer.
const LEADER_AWAY: Duration = Duration::from_secs(5);
/// Jobs kept here for each upload slot, the running ones included: at first, and at most.
const JOBS_MIN: usize = 2;
const JOBS_MAX: usize = 16;
/// Pause after an answer with fewer jobs than asked for: more may be on their way.
const FEW_PAUSE: Duration = Duration::from_millis(20);

/// A question for work that is under way.
type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;

struct Answer {
    asked_at: Instant,
    slots: usize,
    jobs: Result<Vec<ArchiveJob>, MoverError>,
}

/// The upload loop's state.
pub(crate) struct Queue {
    uploader: Arc<Uploader>,
    active: Arc<Active>,
    ends: mpsc::Sender<End>,
    waiting: VecDeque<ArchiveJob>,
    /// Running uploads; each tells whether it succeeded.
    running: JoinSet<bool>,
    /// The job of each running upload, to fail it if the upload ends by a defect.
    jobs: HashMap<Id, ArchiveJob>,
    /// Jobs wanted here for each upload at a time.
    jobs_per_upload: usize,
    asking: Option<Asking>,
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
            jobs: HashMap::new(),
            jobs_per_upload: JOBS_MIN,
            asking: None,
            ask_at: Instant::now(),
            unanswered: 0,
        }
    }

    /// Runs until it is dropped, which ends its uploads.
    pub async fn run(mut self) {
        let uploader = self.uploader.clone();
        fail_leftovers(&uploader, &self.active).await;
        loop {
            self.start_waiting();
            if self.asking.is_none() && self.wants_more() {
                self.asking = Some(Box::pin(ask(uploader.clone(), self.room())));
            }
            // also wakes up by itself: the gate may have opened just now
            let wake_at = self.wake_at();
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.ended(ended).await,
                answer = answered(&mut self.asking) => {
                    self.asking = None;
                    self.take(answer);
                }
                () = tokio::time::sleep_until(wake_at) => {}
                () = uploader.gate.opened(), if !uploader.gate.is_open() => {}
            }
        }
    }

    fn start_waiting(&mut self) {
        while self.running.len() < self.uploader.options.uploads && self.uploader.gate.is_open() {
            let Some(job) = self.waiting.pop_front() else {
                return;
            };
            let (uploader, ends, work) = (self.uploader.clone(), self.ends.clone(), job.clone());
            let task = self.running.spawn(async move {
                let end = upload(&uploader, work).await;
                let well = matches!(end, End::Finish(_));
                // closed only when the mover ends; the attempt stays recorded
                let _ = ends.send(end).await;
                well
            });
            self.jobs.insert(task.id(), job);
        }
    }

    /// An upload's task ended. One that ended by a defect is a failure of its
    /// file: others must not wait for it.
    async fn ended(&mut self, ended: Result<(Id, bool), JoinError>) {
        let (id, well, defect) = match &ended {
            Ok((id, well)) => (*id, *well, None),
            Err(error) => (error.id(), false, Some(error)),
        };
        if !well {
            self.jobs_per_upload = JOBS_MIN;
        }
        let Some((job, defect)) = self.jobs.remove(&id).zip(defect) else {
            return;
        };
        METRICS.defects.add(1);
        let delay = self.uploader.retry_after(job.ino);
        tracing::error!(ino = %job.ino, key = job.key, %defect, ?delay, "upload ended by a defect");
        let end = failed(&self.uploader, job, delay);
        let _ = self.ends.send(end).await;
    }

    fn wants_more(&self) -> bool {
        let few = self.room() * 2 >= self.uploader.options.uploads * self.jobs_per_upload;
        few && self.uploader.gate.is_open() && Instant::now() >= self.ask_at
    }

    fn room(&self) -> usize {
        let here = self.waiting.len() + self.running.len();
        (self.uploader.options.uploads * self.jobs_per_upload).saturating_sub(here)
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let poll_at = now + self.uploader.options.poll;
        match self.asking {
            None if self.ask_at > now => poll_at.min(self.ask_at),
            _ => poll_at,
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer.jobs {
            Ok(jobs) => {
                self.unanswered = 0;
                let idle = self.running.len() < self.uploader.options.uploads;
                if idle && jobs.len() >= answer.slots {
                    self.jobs_per_upload = (self.jobs_per_upload * 2).min(JOBS_MAX);
                }
                // The leader holds a question back while there is nothing; one that
                // does not must not be asked without a pause.
                self.ask_at = match jobs.len() {
                    0 => answer.asked_at + self.uploader.options.poll,
                    n if n < answer.slots => Instant::now() + FEW_PAUSE,
                    _ => Instant::now(),
                };
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
    }
}

/// Fails this node's attempts from before its start: nobody works on them.
async fn fail_leftovers(uploader: &Uploader, active: &Active) {
    loop {
        match fail_own(&*uploader.meta, active, Duration::ZERO).await {
            Ok(0) => return,
            Ok(count) => return tracing::info!(count, "uploads of before the start repeat"),
            Err(error) => {
                tracing::debug!(%error, "attempts of before the start");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn ask(uploader: Arc<Uploader>, slots: usize) -> Answer {
    let asked_at = Instant::now();
    let jobs = uploader.meta.jobs(u32::try_from(slots).unwrap_or(u32::MAX));
    Answer {
        asked_at,
        slots,
        jobs: jobs.await,
    }
}

/// Waits for the answer to the question under way, for ever if none is.
async fn answered(asking: &mut Option<Asking>) -> Answer {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Uploads one file and returns how that ended.
async fn upload(uploader: &Uploader, job: ArchiveJob) -> End {
    let _held = METRICS.uploading.hold();
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
        error => {
            METRICS.upload_failures.add(1);
            tracing::warn!(ino = %job.ino, key = job.key, %error, ?delay, "upload failed");
        }
    }
    failed(uploader, job, delay)
}

fn failed(uploader: &Uploader, job: ArchiveJob, delay: Duration) -> End {
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    End::Fail(ArchiveFail {
        ino: job.ino,
        version: job.version,
        attempt: job.attempt,
        key: job.key,
        retry_at: Time::from_millis(uploader.meta.now_ms().saturating_add(delay_ms)),
    })
}
