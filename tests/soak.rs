//! The example `soak`, for half a minute, and for ten minutes with `tests/run.sh --long --test soak`.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::process::Command;

#[test]
#[ignore = "takes half a minute and needs the built example: tests/run.sh"]
fn guarantee_5_memory_is_bounded_with_twenty_concurrent_operations() {
    // Cargo puts examples next to the folder of this test.
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/soak");
    assert!(program.exists(), "the example soak is not built: run tests/run.sh");
    let seconds = if std::env::var_os("DICOM_EXPORT_LONG").is_some() { "600" } else { "30" };
    let output = Command::new(program).args(["--seconds", seconds]).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    println!("{stdout}");
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.ends_with("all conditions met\n"), "{stdout}");
}
