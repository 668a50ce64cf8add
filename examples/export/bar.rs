//! The progress bar, on stderr.

use dicom_export::Progress;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio::sync::watch;

/// Shows the progress of an operation until it ends.
pub(crate) async fn show(mut progress: watch::Receiver<Progress>) {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]").ok();
    bar.set_style(style.unwrap_or_else(ProgressStyle::default_spinner));
    loop {
        let now = progress.borrow_and_update().clone();
        let of = now.estimate.map_or(String::new(), |all| format!(" of {}", HumanCount(all)));
        let seconds = bar.elapsed().as_secs_f64().max(0.1);
        bar.set_message(format!(
            "{}{of} instances, {} skipped, {}, {:.0} instances/s, {}/s",
            HumanCount(now.exported),
            HumanCount(now.skipped),
            HumanBytes(now.bytes),
            now.exported as f64 / seconds,
            HumanBytes((now.bytes as f64 / seconds) as u64),
        ));
        bar.tick();
        if progress.changed().await.is_err() {
            bar.finish();
            return;
        }
    }
}
