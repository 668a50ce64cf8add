//! Two replicas over the same store and container, of which each may be suspended, killed or restarted at any time while
//! leases lapse.
//!
//! A replica has a runtime of its own, which makes progress only while it is polled. Between polls it is suspended in the
//! middle of whatever it does, like a process that received SIGSTOP: when it continues, another replica may have taken over
//! its operation, or completed it.

use std::time::Duration;

use dicom_export::store::OperationStore;
use dicom_export::{ExportEngine, OperationStatus, Timestamp};
use fastrand::Rng;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::case::Case;
use crate::lives::{DAY, complete, run};
use crate::{on_seeds, runtime};

#[test]
fn guarantee_4_replicas_that_are_suspended_beyond_their_leases_lose_and_damage_nothing() {
    on_seeds("guarantee_4", crate::SEEDS, replicas);
}

/// One process.
struct Replica {
    // Dropped before the runtime.
    engine: ExportEngine,
    runtime: Runtime,
}

impl Replica {
    fn new(case: &Case, rng: &mut Rng) -> Self {
        let (plans, runtime) = (case.plans(rng), runtime());
        Self { engine: runtime.block_on(async { case.engine(&plans) }), runtime }
    }

    /// Continues for a time.
    fn advance(&self, duration: Duration) {
        self.runtime.block_on(async { sleep(duration).await });
    }

    /// Starts or resumes the operation, and continues for a time.
    fn run(&self, case: &Case, rng: &mut Rng, duration: Duration) {
        // Another replica may hold the operation, so any outcome is possible.
        _ = self.runtime.block_on(async { timeout(duration, run(case, &self.engine, rng)).await });
    }

    fn shut_down(self, grace: Duration) {
        // The final log lines and the final save take at most 21 s.
        let limit = grace + Duration::from_secs(21);
        self.runtime.block_on(async {
            timeout(limit, self.engine.shutdown(grace)).await.expect("it shuts down in time");
        });
    }
}

fn replicas(seed: u64) {
    let (mut case, mut rng) = Case::random(seed);
    // Two replicas, and the last process.
    case.processes = 3;
    let mut replicas: [Option<Replica>; 2] = [None, None];
    for _ in 0..rng.usize(1..16) {
        let replica = &mut replicas[rng.usize(..2)];
        let duration = Duration::from_millis([50, 5_000, 100_000][rng.usize(..3)]).mul_f64(rng.f64());
        match rng.u8(..8) {
            0 => *replica = None,
            1 => {
                if let Some(replica) = replica.take() {
                    replica.shut_down(Duration::from_secs(rng.u64(..20)));
                }
            }
            2..4 => runtime().block_on(case.expire_lease()),
            4..6 => {
                replica.get_or_insert_with(|| Replica::new(&case, &mut rng)).run(&case, &mut rng, duration);
            }
            _ => replica.get_or_insert_with(|| Replica::new(&case, &mut rng)).advance(duration),
        }
        if runtime().block_on(case.hold_so_far()) == Some(OperationStatus::Completed) {
            break;
        }
    }

    let plans = case.healed(&mut rng);
    let last = runtime();
    last.block_on(async {
        case.expire_lease().await;
        complete(&case, &case.engine(&plans), &mut rng).await;
    });
    // The suspended replicas continue after the operation has completed.
    for replica in replicas.iter().flatten() {
        replica.advance(DAY);
        runtime().block_on(case.hold_at_the_end());
    }
}

impl Case {
    /// Lets the lease lapse although its runner may still live. Leases use the wall clock, which does not move here.
    async fn expire_lease(&self) {
        if let Ok(mut stored) = self.store.load(self.id).await
            && let Some(lease) = &mut stored.lease
        {
            lease.expires = Timestamp::now().saturating_sub(Duration::from_secs(1));
            self.store.save(self.id, &stored).await.unwrap();
        }
    }
}
