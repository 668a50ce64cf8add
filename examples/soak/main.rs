//! Twenty exports at once for as long as it is told: some are canceled, one goes to a destination that is stuck and
//! then slow, one to a destination that is down.
//!
//! `cargo run --release --features testing --example soak -- --seconds 600`
//!
//! The destinations are a server that this program starts as a process of its own and that throws everything away; the
//! instances are made up. It prints a line every few seconds, and in the end whether these held:
//!
//! - The memory of the process stays under a bound that follows from the byte budget, and does not grow.
//! - Each of the other operations reaches an end, with exact counts, while the stuck one has not moved at all.
//! - What goes to the destination that is down fails within its retry budget, and skips nothing.
//! - A shutdown in the middle of it all leaves no task behind, and what had not ended can be resumed.
//!
//! The exit status is 0 if they did. The memory is read from `/proc`: Linux only.

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

/// How much instance data the engine holds at once.
pub(crate) const BUDGET: u64 = 32 << 20;

/// What a process takes besides: the program, connections, 16 MiB of buffers that are kept to be used again, and what
/// the allocator keeps of memory that one thread takes and another gives back.
const BESIDES: u64 = 80 << 20;

/// How much more the second half of the time may take than the first.
const GROWTH: u64 = 16 << 20;

/// How long a shutdown lets batches finish.
const GRACE: Duration = Duration::from_secs(1);

/// Longer than anything here takes that ends at all.
const PATIENCE: Duration = Duration::from_secs(300);

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
    let faults = runtime.block_on(soak(&server.address, Duration::from_secs(seconds)))?;
    let mut out = std::io::stdout();
    for fault in &faults {
        writeln!(out, "BROKEN: {fault}")?;
    }
    if faults.is_empty() {
        writeln!(out, "everything held")?;
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gives what did not hold.
async fn soak(address: &str, long: Duration) -> Outcome<Vec<String>> {
    let (load, watch, began) = (Load::on(address)?, Watch::new(), Instant::now());
    let halfway = async {
        sleep(long / 2).await;
        watch.halfway();
        sleep(long / 2).await;
        // A machine that is slow needs longer for the least that has to happen.
        load.has_shown_enough().await;
    };
    let mut faults = Vec::new();
    tokio::select! {
        outcome = load.run(long + PATIENCE) => outcome?,
        outcome = watch.keep() => outcome?,
        outcome = report(&load, &watch, began, long / 4) => outcome?,
        _ = timeout(long + PATIENCE, halfway) => {}
    }
    writeln!(std::io::stdout(), "{:4} s  {load}", began.elapsed().as_secs())?;

    faults.extend(load.faults());
    faults.extend(load.shut_down(GRACE).await?);
    drop(load);
    // Connections end by themselves once nobody holds their client.
    let metrics = tokio::runtime::Handle::current().metrics();
    let deadline = Instant::now() + PATIENCE;
    while metrics.num_alive_tasks() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    let left = metrics.num_alive_tasks();
    if left > 0 {
        faults.push(format!("{left} tasks were left behind"));
    }
    let (first, second) = watch.peaks();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(
        std::io::stdout(),
        "memory: {:.1} MiB at most in the first half, {:.1} in the second; the byte budget is {:.0}",
        mib(first),
        mib(second),
        mib(BUDGET)
    )?;
    if first.max(second) > BUDGET + BESIDES {
        faults.push(format!("more than {:.0} MiB of memory", mib(BUDGET + BESIDES)));
    }
    if second > first + GROWTH {
        faults.push("the memory grows".to_owned());
    }
    Ok(faults)
}

/// Prints a line now and then.
async fn report(load: &Load, watch: &Watch, began: Instant, every: Duration) -> Outcome {
    loop {
        sleep(every.min(Duration::from_secs(5))).await;
        let (seconds, memory) = (began.elapsed().as_secs(), watch.now() >> 20);
        writeln!(std::io::stdout(), "{seconds:4} s  {load}  {memory} MiB")?;
        load.purge_expired().await?;
    }
}

/// The other side; it ends with this value.
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
