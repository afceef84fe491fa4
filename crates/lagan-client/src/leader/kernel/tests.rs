use super::*;
use crate::leader::fake::{Nobody, attr};
use lagan_lease::Way;
use lagan_types::lease::Leased;
use lagan_types::message::SessionHeard;
use lagan_types::query::{GetAttr, QueryAnswer};
use lagan_types::{Query, SessionId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

const FILE: Ino = Ino(5);
const ROOT: Ino = Ino(1);

/// A cache that has lent the kernel the attributes of the file.
fn lent(way: Way<'_>) -> Arc<Leases> {
    let leases = Arc::new(Leases::new(SessionId(1), true));
    let beat = leases.beat();
    let heard = SessionHeard {
        now: lagan_types::Time::default(),
        alive: true,
        map_version: 0,
        check: 0,
        orphans: Vec::new(),
        term: 1,
        leased: true,
    };
    leases.beat_answered(beat, &heard);
    let query = Query::from(GetAttr { ino: FILE });
    let asked = leases.ask(&query).unwrap();
    let answer = Ok(QueryAnswer::Attr(attr(FILE)));
    let (term, keys) = (1, vec![true]);
    leases.keep(asked, &query, &answer, &Leased { term, keys });
    assert!((0..5).any(|_| leases.lend(&attr(FILE), way)));
    assert_eq!(leases.loans().len(), 1);
    leases
}

/// What it was told to forget, and how it answers: which it does not know, or not at all.
type Told = Arc<Mutex<Vec<Vec<Ino>>>>;

fn kernel(answers: impl Fn(usize) -> Option<Vec<Ino>> + Send + Sync + 'static) -> (Kernel, Told) {
    let nobody: Weak<Nobody> = Weak::new();
    let (kernel, told) = (Kernel::new(nobody), Told::default());
    let seen = told.clone();
    kernel.forgets_by(Arc::new(move |inos| {
        let (done, unknown) = oneshot::channel();
        let mut seen = seen.lock();
        if let Some(answer) = answers(seen.len()) {
            done.send(answer).unwrap();
        }
        seen.push(inos);
        unknown
    }));
    (kernel, told)
}

#[tokio::test]
async fn loan_is_back_when_the_kernel_was_told() {
    let (leases, (kernel, told)) = (lent(Way::Attributes), kernel(|_| Some(Vec::new())));
    kernel.take_all_back(&leases).await;
    assert_eq!(*told.lock(), [[FILE]]);
    assert!(leases.loans().is_empty());
}

#[tokio::test]
async fn inode_that_may_be_arriving_is_told_again() {
    let unknown = |_| Some(vec![FILE]);
    let (leases, (attrs, told)) = (lent(Way::Attributes), kernel(unknown));
    attrs.take_all_back(&leases).await;
    assert_eq!(
        told.lock().len(),
        1,
        "it had it in its cache, or never will"
    );
    let (leases, (named, told)) = (lent(Way::Name(ROOT, b"f")), kernel(unknown));
    named.take_all_back(&leases).await;
    assert_eq!(told.lock().len(), 2);
    assert!(leases.loans().is_empty());
}

#[tokio::test]
async fn kernel_that_cannot_be_told_is_waited_for() {
    let (leases, (kernel, _)) = (lent(Way::Attributes), kernel(|_| None));
    let (began, left_ms) = (Instant::now(), leases.loans()[0].left_ms(now_ms()));
    assert!(left_ms > 0);
    kernel.take_all_back(&leases).await;
    assert!(began.elapsed() >= Duration::from_millis(left_ms - 1));
    assert!(leases.loans().is_empty());
}

#[tokio::test]
async fn kernel_that_is_gone_believes_nothing() {
    let (leases, (kernel, told)) = (lent(Way::Name(ROOT, b"f")), kernel(|_| Some(Vec::new())));
    kernel.gone();
    kernel.settle(&leases, 2).await;
    assert!(told.lock().is_empty() && leases.loans().is_empty() && !kernel.can_forget());
}
