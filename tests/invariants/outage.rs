//! Guarantee 3: a lasting outage of one side fails the operation within its budget, and the operation can be resumed.

use std::time::Duration;

use dicom_export::store::OperationStore;
use dicom_export::{ErrorKind, NewOperation, OperationStatus};
use tokio::time::{Instant, timeout};

use crate::case::Case;
use crate::{on_seeds, runtime};

/// Time beyond the budget: the final log lines to a log that does not respond, and the latencies of one more call.
const SLACK: Duration = Duration::from_secs(60);

#[test]
fn guarantee_3_a_lasting_outage_fails_the_operation_within_the_budget() {
    on_seeds("guarantee_3", 250, |seed| {
        let (case, mut rng) = Case::random(seed);
        runtime().block_on(async {
            let plans = case.healed(&mut rng);
            let engine = case.engine(&plans);
            let new = NewOperation::new(case.wanted.clone(), case.destination()).with_id(case.id);
            engine.create(new).await.unwrap();
            let run = engine.run(case.id);
            tokio::pin!(run);
            let ran = timeout(Duration::from_millis(rng.u64(..100)), &mut run).await;
            if ran.is_err() {
                let kind = [ErrorKind::Unavailable, ErrorKind::Throttled][rng.usize(..2)];
                [&plans.source, &plans.sink][rng.usize(..2)].down(kind);
                let down = Instant::now();
                // A single call gives up after twice the budget even while others pass.
                let ended = timeout(case.budget() * 2 + SLACK, run)
                    .await
                    .expect("the operation fails in time")
                    .unwrap();
                if ended.status == OperationStatus::Failed {
                    // The last failure may be that of a call that began before the outage.
                    let expected = [ErrorKind::Unavailable, ErrorKind::Throttled].map(ErrorKind::as_str);
                    let error = ended.error.unwrap();
                    assert!(expected.contains(&&*error.code), "{error:?}");
                    // A failure shortly before the outage may have started the budget.
                    let elapsed = down.elapsed();
                    assert!(elapsed >= case.budget() / 2, "the operation failed after {elapsed:?}");
                }
            }
            case.hold_so_far().await;
            plans.source.heal();
            plans.sink.heal();
            if case.store.load(case.id).await.unwrap().status != OperationStatus::Completed {
                engine.resume(case.id, Some(case.destination().into())).await.unwrap();
                let ended = engine.wait(case.id).await.unwrap();
                assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
            }
            case.hold_at_the_end().await;
        });
    });
}
