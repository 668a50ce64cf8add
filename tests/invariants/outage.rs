//! Guarantee 3: a side that stays down fails the operation within its budget, and what failed is resumed to its end.

use std::time::Duration;

use dicom_export::store::OperationStore;
use dicom_export::{ErrorKind, NewOperation, OperationStatus};
use tokio::time::{Instant, timeout};

use crate::case::Case;
use crate::{on_seeds, runtime};

/// Besides the budget: the last words to a log that does not answer, and the latencies of one more call.
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
                let ended = timeout(case.budget() * 2 + SLACK, run).await.expect("it gives up").unwrap();
                if ended.status == OperationStatus::Failed {
                    assert_eq!(ended.error.unwrap().code, kind.as_str());
                    // What failed shortly before that and came round counts from there.
                    let held_out = down.elapsed();
                    assert!(held_out >= case.budget() / 2, "it gave up after {held_out:?}");
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
