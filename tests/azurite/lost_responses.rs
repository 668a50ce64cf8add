//! `errors.log` on a server whose responses are lost: a line is not appended again.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dicom_export::sink::LogKey;
use dicom_export::sink::azure::AzureBlobSink;
use dicom_export::{BlobPath, BlobSink, ErrorKind};
use futures::future::join_all;

use crate::responder::{Reply, Request, Responder};
use crate::{faulty, log};

/// An append blob that behaves as on Azure, except for its faults.
struct AppendBlob {
    exists: bool,
    bytes: Vec<u8>,
    appends: usize,
    /// Whether responses have no append offset.
    no_offset: bool,
    /// Replaces the response to an append by its number, from 1. The lines are appended.
    lost: fn(usize) -> Option<Reply>,
    /// Whether the credential may read the blob.
    can_read: bool,
    /// Lines that another process appends in place of the next append, whose request is lost.
    other_writer: Option<&'static str>,
}

impl AppendBlob {
    fn new(lost: fn(usize) -> Option<Reply>) -> Self {
        Self {
            exists: false,
            bytes: Vec::new(),
            appends: 0,
            no_offset: false,
            lost,
            can_read: false,
            other_writer: None,
        }
    }

    fn respond(&mut self, request: &Request) -> Reply {
        if let Some(range) = request.header("range") {
            return self.read(range);
        }
        if !request.has_comp("appendblock") {
            assert_eq!(request.header("if-none-match"), Some("*"));
            return match std::mem::replace(&mut self.exists, true) {
                true => Reply::code(409, "BlobAlreadyExists"),
                false => Reply::status(201),
            };
        }
        let position = request.header("x-ms-blob-condition-appendpos").map(|at| at.parse::<usize>().unwrap());
        if position.is_some_and(|at| at != self.bytes.len()) {
            return Reply::code(412, "AppendPositionConditionNotMet");
        }
        let max_size =
            request.header("x-ms-blob-condition-maxsize").map(|size| size.parse::<usize>().unwrap());
        if max_size.is_some_and(|size| self.bytes.len() + request.body.len() > size) {
            return Reply::code(412, "MaxBlobSizeConditionNotMet");
        }
        if let Some(lines) = self.other_writer.take() {
            self.bytes.extend_from_slice(lines.as_bytes());
            return Reply::Disconnect;
        }
        let offset = if self.no_offset { 0 } else { self.bytes.len() };
        self.bytes.extend_from_slice(&request.body);
        self.appends += 1;
        (self.lost)(self.appends).unwrap_or(Reply::status(201).header("x-ms-blob-append-offset", offset))
    }
}

impl AppendBlob {
    fn read(&self, range: &str) -> Reply {
        if !self.can_read {
            return Reply::code(403, "AuthorizationPermissionMismatch");
        }
        let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (start, length) = (start.parse::<usize>().unwrap(), self.bytes.len());
        let end = length.min(last.parse::<usize>().unwrap() + 1);
        Reply::status(206)
            .header("content-range", format!("bytes {start}-{}/{length}", end - 1))
            .body(std::str::from_utf8(&self.bytes[start..end]).unwrap())
    }
}

async fn start(blob: AppendBlob) -> (Responder, Arc<Mutex<AppendBlob>>) {
    let blob = Arc::new(Mutex::new(blob));
    let shared = Arc::clone(&blob);
    (Responder::start(move |request| shared.lock().unwrap().respond(request)).await, blob)
}

/// Appends a line as the engine does, with retries of transient errors. Returns the number of failures.
async fn append(sink: &AzureBlobSink, log: &BlobPath, number: u64) -> usize {
    let line = Bytes::from(format!("{{\"line\":{number}}}\n"));
    let mut failures = 0;
    while let Err(error) = sink.append(log, LogKey::new(0, number), line.clone()).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        failures += 1;
    }
    failures
}

fn numbers(blob: &Mutex<AppendBlob>) -> Vec<u64> {
    let text = String::from_utf8(blob.lock().unwrap().bytes.clone()).unwrap();
    let number =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].as_u64().unwrap();
    let mut numbers: Vec<_> = text.lines().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn line_appears_once_although_its_response_was_lost() {
    let lost = |append: usize| match append % 5 {
        0 => Some(Reply::Disconnect),
        2 => Some(Reply::code(500, "OperationTimedOut")),
        _ => None,
    };
    let (server, blob) = start(AppendBlob::new(lost)).await;
    let (sink, log) = (faulty(&server.url()), log());
    sink.prepare(&log).await.unwrap();
    let callers = (0..8).map(async |caller| {
        let mut failures = 0;
        for number in 0..50 {
            failures += append(&sink, &log, caller * 50 + number).await;
        }
        failures
    });
    let failures: usize = join_all(callers).await.into_iter().sum();
    assert!(failures > 10, "{failures}");
    assert_eq!(numbers(&blob), (0..400).collect::<Vec<_>>());
}

#[tokio::test]
async fn first_response_after_a_restart_has_the_end_of_the_log() {
    let lost = |append: usize| (append > 2 && append.is_multiple_of(2)).then_some(Reply::Disconnect);
    let (server, blob) = start(AppendBlob::new(lost)).await;
    let log = log();
    for run in 0..3 {
        let sink = faulty(&server.url());
        sink.prepare(&log).await.unwrap();
        // The first response of a run must not be lost, since that append has no position.
        assert_eq!(append(&sink, &log, run * 10).await, 0);
        for number in 1..4 {
            append(&sink, &log, run * 10 + number).await;
        }
        sink.finish(&log).await.unwrap();
    }
    let expected: Vec<_> = (0..3).flat_map(|run| (0..4).map(move |number| run * 10 + number)).collect();
    assert_eq!(numbers(&blob), expected);
}

/// Azurite always returns an offset of 0.
#[tokio::test]
async fn server_without_append_offsets_is_supported() {
    let (server, blob) = start(AppendBlob { no_offset: true, ..AppendBlob::new(|_| None) }).await;
    let log = log();
    for run in 0..3 {
        let sink = faulty(&server.url());
        sink.prepare(&log).await.unwrap();
        for number in 0..4 {
            assert_eq!(append(&sink, &log, run * 10 + number).await, 0);
        }
    }
    let expected: Vec<_> = (0..3).flat_map(|run| (0..4).map(move |number| run * 10 + number)).collect();
    assert_eq!(numbers(&blob), expected);
}

#[tokio::test]
async fn concurrent_writer_in_another_process_is_supported() {
    let (server, blob) = start(AppendBlob::new(|_| None)).await;
    let (sink, log) = (faulty(&server.url()), log());
    sink.prepare(&log).await.unwrap();
    for number in 0..4 {
        blob.lock().unwrap().bytes.extend_from_slice(b"{\"line\":99}\n");
        assert_eq!(append(&sink, &log, number).await, 0);
    }
    assert_eq!(numbers(&blob), [0, 1, 2, 3, 99, 99, 99, 99]);
}

/// The blob has another length than before the lost request, although it does not contain the lines of that request.
#[tokio::test]
async fn guarantee_4_lines_of_another_process_are_not_taken_for_own_lines_whose_response_was_lost() {
    let short = "{\"line\":9}\n";
    let long = "{\"line\":99}\n{\"line\":999}\n";
    // Without the permission to read, a longer blob is assumed to contain the lines.
    for (can_read, lines, others) in [(true, short, &[9][..]), (true, long, &[99, 999]), (false, short, &[9])]
    {
        let (server, blob) = start(AppendBlob { can_read, ..AppendBlob::new(|_| None) }).await;
        let (sink, log) = (faulty(&server.url()), log());
        sink.prepare(&log).await.unwrap();
        append(&sink, &log, 10).await;
        blob.lock().unwrap().other_writer = Some(lines);
        assert_eq!(append(&sink, &log, 20).await, 1);
        append(&sink, &log, 30).await;
        let mut expected = [&[10, 20, 30], others].concat();
        expected.sort_unstable();
        assert_eq!(numbers(&blob), expected, "{can_read} {lines}");
    }
}

/// The lines are in the blob, followed by those of another process.
#[tokio::test]
async fn own_lines_are_recognized_before_lines_of_another_process() {
    let lost = |append| (append == 2).then_some(Reply::Disconnect);
    let (server, blob) = start(AppendBlob { can_read: true, ..AppendBlob::new(lost) }).await;
    let (sink, log) = (faulty(&server.url()), log());
    sink.prepare(&log).await.unwrap();
    append(&sink, &log, 1).await;
    let line = Bytes::from("{\"line\":2}\n");
    sink.append(&log, LogKey::new(0, 2), line.clone()).await.unwrap_err();
    blob.lock().unwrap().bytes.extend_from_slice(b"{\"line\":99}\n");
    sink.append(&log, LogKey::new(0, 2), line).await.unwrap();
    append(&sink, &log, 3).await;
    assert_eq!(numbers(&blob), [1, 2, 3, 99]);
}

#[tokio::test]
async fn full_log_is_unsupported() {
    let full = |_| Some(Reply::code(409, "BlockCountExceedsLimit"));
    let (server, _) = start(AppendBlob::new(full)).await;
    let (sink, log) = (faulty(&server.url()), log());
    sink.prepare(&log).await.unwrap();
    let error = sink.append(&log, LogKey::new(0, 0), Bytes::from("{}\n")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.message(), "errors.log is full: Azure allows 50,000 appends to a blob");
}

#[tokio::test]
async fn empty_append_sends_no_request() {
    let (server, _) = start(AppendBlob::new(|_| None)).await;
    faulty(&server.url()).append(&log(), LogKey::new(0, 0), Bytes::new()).await.unwrap();
    assert!(server.requests().is_empty());
}
