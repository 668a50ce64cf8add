//! A load test: twenty concurrent exports for a given time. Some are canceled, one has a destination that is blocked and
//! then slow, one has a destination that is down.
//!
//! `cargo run --release --features testing --example soak -- --seconds 600`
//!
//! The destinations are a server that this program starts as a separate process and that discards the data. The instances
//! are generated. The program prints a line every few seconds, and at the end whether these conditions were met:
//!
//! - The memory of the process stays below a bound that follows from the memory budget, and does not grow.
//! - The other operations end, with exact counts, while the blocked one makes no progress.
//! - The operation whose destination is down fails within its retry budget, and skips nothing.
//! - A shutdown during the load leaves no task behind, and operations that have not ended can be resumed.
//!
//! The exit status is 0 if all were met. The memory is read from `/proc`: Linux only.

mod load;
mod memory;
mod server;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use self::load::Load;
use self::memory::Watch;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The memory budget of the engine.
pub(crate) const BUDGET: u64 = 32 << 20;

/// The memory of the process besides the budget: the program, connections, 16 MiB of pooled buffers, and what the allocator
/// retains of memory that is allocated on one thread and freed on another.
const MEMORY_OVERHEAD: u64 = 80 << 20;

/// The permitted growth of the peak from the first half of the time to the second.
const MAX_GROWTH: u64 = 16 << 20;

/// How long batches in flight may take at the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Longer than any step takes that ends.
const TIMEOUT: Duration = Duration::from_secs(300);

fn main() -> Outcome<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let seconds = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => 600,
        ["--seconds", seconds] => seconds.parse()?,
        ["serve"] => return server::serve().map(|()| ExitCode::SUCCESS),
        _ => return Err("usage: soak [--seconds N]".into()),
    };
    let server = Server::start()?;
    let runtime = Runtime::new()?;
    let violations = runtime.block_on(soak(&server.address, Duration::from_secs(seconds)))?;
    let mut out = std::io::stdout();
    for violation in &violations {
        writeln!(out, "FAILED: {violation}")?;
    }
    if violations.is_empty() {
        writeln!(out, "all conditions met")?;
    }
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the conditions that were not met.
async fn soak(address: &str, duration: Duration) -> Outcome<Vec<String>> {
    let (load, watch, began) = (Load::new(address)?, Watch::new(), Instant::now());
    let halfway = async {
        sleep(duration / 2).await;
        watch.halfway();
        sleep(duration / 2).await;
        // A slow machine may need longer.
        load.wait_until_covered().await;
    };
    let mut violations = Vec::new();
    tokio::select! {
        outcome = load.run(duration + TIMEOUT) => outcome?,
        outcome = watch.run() => outcome?,
        outcome = report(&load, &watch, began, duration / 4) => outcome?,
        _ = timeout(duration + TIMEOUT, halfway) => {}
    }
    writeln!(std::io::stdout(), "{:4} s  {load}", began.elapsed().as_secs())?;

    violations.extend(load.violations());
    violations.extend(load.shut_down(SHUTDOWN_GRACE).await?);
    drop(load);
    // Connection tasks end after their client was dropped.
    let metrics = tokio::runtime::Handle::current().metrics();
    let deadline = Instant::now() + TIMEOUT;
    while metrics.num_alive_tasks() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    let left = metrics.num_alive_tasks();
    if left > 0 {
        violations.push(format!("{left} tasks are still running after the shutdown"));
    }
    let (first, second) = watch.peaks();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(
        std::io::stdout(),
        "memory: peak {:.1} MiB in the first half, {:.1} in the second; the memory budget is {:.0}",
        mib(first),
        mib(second),
        mib(BUDGET)
    )?;
    if first.max(second) > BUDGET + MEMORY_OVERHEAD {
        violations.push(format!("more than {:.0} MiB of memory", mib(BUDGET + MEMORY_OVERHEAD)));
    }
    if second > first + MAX_GROWTH {
        violations.push("the memory grew".to_owned());
    }
    Ok(violations)
}

/// Prints the counts at regular intervals.
async fn report(load: &Load, watch: &Watch, began: Instant, every: Duration) -> Outcome {
    loop {
        sleep(every.min(Duration::from_secs(5))).await;
        let (seconds, memory) = (began.elapsed().as_secs(), watch.now() >> 20);
        writeln!(std::io::stdout(), "{seconds:4} s  {load}  {memory} MiB")?;
        load.purge_expired().await?;
    }
}

/// The destination's process; it ends with this value.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        let read = process.stdout.take().map(|out| BufReader::new(out).read_line(&mut address)).transpose();
        let server = Self { process, address: address.trim().to_owned() };
        match read?.unwrap_or_default() {
            0 => Err("the server did not start".into()),
            _ => Ok(server),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
