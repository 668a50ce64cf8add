//! TCP ports for servers that cannot choose a free port themselves.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::fs::File;
use std::net::TcpListener;

/// A port on the loopback interface that no other test uses while this value exists.
///
/// The range is below the one from which the system assigns ports to outgoing connections, so a server can be stopped and
/// started again on its port.
pub(crate) struct Port {
    number: u16,
    /// Locked; the lock is released when the file is closed, also if the test process is killed.
    _lock: File,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let first = fastrand::u16(..12_000);
        for offset in 0..12_000 {
            let number = 20_000 + (first + offset) % 12_000;
            let path = std::env::temp_dir().join(format!("dicom-export-test-port-{number}"));
            let Ok(lock) = File::options().create(true).append(true).open(path) else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port");
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
