//! One process after the other that runs an operation and may be killed, until one completes it.

use std::time::Duration;

use dicom_export::store::{OperationStore, SecretStore};
use dicom_export::{ErrorKind, ExportEngine, NewOperation, Operation, OperationStatus, Result, Target};
use fastrand::Rng;
use tokio::time::{sleep, timeout};

use crate::archive::Item;
use crate::case::{Case, Plans};
use crate::{on_seeds, runtime};

/// Longer than any run that is not killed.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn guarantees_1_to_5_and_8_hold_whatever_fails_and_dies() {
    on_seeds("guarantees_1_to_5_and_8", crate::SEEDS, live);
}

fn live(seed: u64) {
    let (case, mut rng) = Case::random(seed);
    for _ in 0..rng.usize(..8) {
        let plans = case.plans(&mut rng);
        let status = life(&case, &plans, &mut rng);
        if runtime().block_on(case.hold_so_far()) == Some(OperationStatus::Completed) {
            assert_ne!(status, Some(OperationStatus::Failed));
            break;
        }
    }
    let plans = case.healed(&mut rng);
    let last = runtime();
    last.block_on(async {
        case.release_lease().await;
        complete(&case, &case.engine(&plans), &mut rng).await;
        // A process that was killed right after the end leaves the secret to the deletion of the operation.
        case.forgetful_engine(&plans).purge_expired().await.unwrap();
        assert!(case.secrets.get(case.id).await.unwrap().is_none(), "the secret outlived the operation");
        assert!(case.store.load(case.id).await.is_err());
    });
}

/// Runs one process until it ends or is killed. Returns the status with which the operation ended, if it did.
fn life(case: &Case, plans: &Plans, rng: &mut Rng) -> Option<OperationStatus> {
    let dies_after = match rng.u8(..4) {
        0 => None,
        1 => Some(Duration::from_millis(rng.u64(..50))),
        2 => Some(Duration::from_millis(rng.u64(..5_000))),
        _ => Some(Duration::from_secs(rng.u64(..300))),
    };
    let outage = (rng.u8(..4) == 0).then(|| (rng.u8(..3), rng.u64(..60), rng.u64(..1_000)));
    let paused_after = (rng.u8(..4) == 0).then(|| Duration::from_millis(rng.u64(..60_000)));
    let shuts_down = rng.bool();
    let runtime = runtime();
    runtime.block_on(async {
        let engine = case.engine(plans);
        case.release_lease().await;
        if let Some((side, after, long)) = outage {
            let plan = [&plans.source, &plans.sink, &plans.store][usize::from(side)].clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs(after)).await;
                plan.down(ErrorKind::Unavailable);
                sleep(Duration::from_secs(long)).await;
                plan.heal();
            });
        }
        if let Some(time) = paused_after {
            let (engine, id) = (engine.clone(), case.id);
            tokio::spawn(async move {
                sleep(time).await;
                // It fails if the operation does not exist yet or has ended, or if the store is down.
                _ = engine.pause(id).await;
            });
        }
        let ended = timeout(dies_after.unwrap_or(DAY), run(case, &engine, rng)).await;
        let ends_by_itself = dies_after.is_none();
        assert!(ended.is_ok() || !ends_by_itself, "the run does not end");
        // A failure cannot be saved in a store that is down for longer than the budget, so the operation is left without
        // a runner. A caller that gets an error repeats the call.
        let refused = matches!(ended, Ok(Err(_)));
        let may_be_left = refused || !ends_by_itself || outage.is_some_and(|(side, _, _)| side == 2);
        let stored = case.status().await;
        assert!(
            may_be_left || stored.is_none_or(|status| status.is_ended() || status == OperationStatus::Paused),
            "the operation has no runner: {stored:?}"
        );
        if shuts_down {
            let grace = Duration::from_secs(rng.u64(..20));
            // Includes the final log lines and the final save.
            let longest = grace + Duration::from_secs(21);
            timeout(longest, engine.shutdown(grace)).await.expect("it shuts down in time");
        }
        let ended = ended.ok()?.ok()?;
        // A returned status is a stored status.
        if ended.status.is_ended() {
            assert_eq!(case.status().await, Some(ended.status));
            let secret = case.secrets.get(case.id).await.unwrap();
            // With a store that is down, the runner may not learn that its last save succeeded.
            assert!(secret.is_none() || may_be_left, "the secret outlived the operation");
        }
        Some(ended.status)
    })
}

pub(crate) async fn run(case: &Case, engine: &ExportEngine, rng: &mut Rng) -> Result<Operation> {
    if case.store.load(case.id).await.is_err() {
        create(case, engine).await?;
    }
    resume(case, engine, rng).await
}

async fn create(case: &Case, engine: &ExportEngine) -> Result<()> {
    let new = NewOperation::new(case.wanted.clone(), case.destination()).with_id(case.id);
    let created = engine.create(new).await;
    let there = case.store.load(case.id).await.is_ok();
    match created {
        Ok(_) => assert!(there),
        Err(error) => {
            let expected = [ErrorKind::Invalid, ErrorKind::Unavailable, ErrorKind::Internal];
            assert!(expected.contains(&error.kind()), "{error:?}");
            return Err(error);
        }
    }
    Ok(())
}

/// Resumes the operation in a random way, and waits for its end.
async fn resume(case: &Case, engine: &ExportEngine, rng: &mut Rng) -> Result<Operation> {
    let stored = case.store.load(case.id).await?;
    // The secret is deleted when its operation ends, and is missing if the operation was never accepted.
    let there = case.secrets.get(case.id).await?.is_some();
    let lost = case.has_secret && (!there || stored.status == OperationStatus::Failed);
    let target = (lost || rng.u8(..4) == 0).then(|| Target::from(case.destination()));
    // A takeover obeys a request to pause that a killed process has left.
    let is_stopped = matches!(stored.status, OperationStatus::Failed | OperationStatus::Paused);
    let is_taken_over = !is_stopped && !stored.pause_requested;
    match rng.u8(..3) {
        0 if target.is_none() => return engine.run(case.id).await,
        1 if target.is_none() && is_taken_over => _ = engine.resume_all().await?,
        _ => _ = engine.resume(case.id, target).await?,
    }
    // The channel closes when the run ends.
    if let Some(mut progress) = engine.progress(case.id) {
        while progress.changed().await.is_ok() {}
    }
    loop {
        match engine.status(case.id).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => sleep(Duration::from_secs(1)).await,
            ended => return ended,
        }
    }
}

/// Starts the operation unless it was accepted, resumes it unless it has completed, and checks its end.
pub(crate) async fn complete(case: &Case, engine: &ExportEngine, rng: &mut Rng) {
    if case.store.load(case.id).await.is_err() {
        create(case, engine).await.unwrap();
    }
    if case.status().await != Some(OperationStatus::Completed) {
        let ended = timeout(DAY, resume(case, engine, rng)).await.expect("the run ends").unwrap();
        assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    }
    engine.shutdown(Duration::ZERO).await;
    case.hold_at_the_end().await;
}

impl Case {
    /// Releases the lease of a killed process. Leases use the wall clock, which does not move here.
    async fn release_lease(&self) {
        if let Ok(mut stored) = self.store.load(self.id).await
            && stored.lease.take().is_some()
        {
            self.store.save(self.id, &stored).await.unwrap();
        }
    }

    pub(crate) async fn status(&self) -> Option<OperationStatus> {
        self.store.load(self.id).await.ok().map(|stored| stored.status)
    }

    /// The number of readable instances, and the number of entries to skip.
    pub(crate) fn expected(&self) -> (u64, u64) {
        let covered = self.archive.covered(&self.wanted);
        let good = |item: &&&Item| matches!(item, Item::Instance(held) if held.bad.is_none());
        let good = covered.values().filter(good).count();
        let bad = covered.len() - good + self.archive.unmatched(&self.wanted).len();
        (good as u64, bad as u64)
    }
}
