//! The `soak` example holds for half a minute, and for ten with `tests/run.sh --long --test soak`.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::process::Command;

#[test]
#[ignore = "takes half a minute, and the built example: tests/run.sh"]
fn guarantee_5_twenty_operations_at_once_hold() {
    // Cargo puts examples beside the folder of this test.
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/soak");
    assert!(program.exists(), "the soak example is not built: tests/run.sh does it");
    let seconds = if std::env::var_os("DICOM_EXPORT_LONG").is_some() { "600" } else { "30" };
    let output = Command::new(program).args(["--seconds", seconds]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("everything held\n"), "{said}");
}
