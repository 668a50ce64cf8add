//! Work in proportion to the input: what is allocated for inputs that grow in one dimension. Allocations are counted
//! instead of time, because they are the same on every machine.

use std::fmt::Write;

use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::{ExportRequest, SinkProvider};
use serde_json::json;

use crate::runner::{Cost, exclusive, measure};
use crate::{MIB, targets};

/// The body of a request with this number of identifiers.
fn body(identifiers: usize, identifier: impl Fn(usize) -> String) -> String {
    let mut text = String::from(r#"{"source":{"type":"identifiers","settings":{"values":["#);
    for number in 0..identifiers {
        let comma = if number > 0 { "," } else { "" };
        write!(text, "{comma}\"{}\"", identifier(number)).unwrap();
    }
    text.push_str(r#"]}},"destination":{"type":"azureblob","settings":{}}}"#);
    text
}

/// Asserts that the cost grows with the size of the input, with a tolerance of a quarter.
#[track_caller]
fn assert_linear(small: (usize, Cost), large: (usize, Cost)) {
    let limit = |cost: usize| cost as f64 * (large.0 as f64 / small.0 as f64) * 1.25 + 10_000.0;
    let (a, b) = (small.1, large.1);
    assert!(b.allocations as f64 <= limit(a.allocations), "{small:?} {large:?}");
    assert!(b.bytes as f64 <= limit(a.bytes), "{small:?} {large:?}");
}

#[test]
fn the_cost_of_a_request_is_linear_in_its_identifiers() {
    let _exclusive = exclusive();
    let read = |count: usize, identifier: fn(usize) -> String| {
        let text = body(count, identifier);
        let (request, cost) = measure(|| ExportRequest::from_json(text.as_bytes()).unwrap());
        assert!(cost.bytes < 64 * text.len(), "{cost:?} for {} bytes", text.len());
        (text.len(), cost, request)
    };
    // Powers of two, so that tables that grow by doubling are equally full in both.
    let million = 1 << 20;
    type Shape = fn(usize) -> String;
    let instances: Shape = |n| format!("1.2.{:07}/1.2.3.{:07}/1.2.3.4.{n:07}", n / 64, n / 8);
    let studies: Shape = |n| format!("1.2.{n:07}");
    let of_a_series: Shape = |n| format!("1.2.3/1.2.3.4/1.2.3.4.{n:07}");
    let again: Shape = |_| "1.2.840.10008".to_owned();
    let covered: Shape = |n| if n == 0 { "1.2.3".into() } else { format!("1.2.3/1.2.3.4/1.2.3.4.{n:07}") };
    let shapes = [
        (instances, million),
        (studies, 1 << 17),
        (of_a_series, 1 << 17),
        (again, 1 << 17),
        (covered, 1 << 17),
    ];
    for (number, (shape, count)) in shapes.into_iter().enumerate() {
        let few = read(count / 8, shape);
        let many = read(count, shape);
        let dicom_export::ExportSource::Identifiers(identifiers) = many.2.source() else { panic!() };
        let kept = if number < 3 { count } else { 1 };
        assert_eq!(identifiers.len(), kept);
        assert_linear((few.0, few.1), (many.0, many.1));
    }
}

/// Inputs whose cost was quadratic in an earlier version, or could become quadratic. Each grows in one dimension.
#[test]
fn the_cost_of_an_input_is_linear_in_its_size() {
    let _exclusive = exclusive();
    let settings = |settings: String| format!(r#"{{"destination":{{"type":"x","settings":{settings}}}}}"#);
    type Shape = (fn(&[u8]), Box<dyn Fn(usize) -> String>);
    let shapes: Vec<Shape> = vec![
        // A pointer for each item below a long name would be quadratic.
        (
            targets::request::run,
            Box::new(move |n| settings(format!(r#"{{"{}":[0{}]}}"#, "k".repeat(n), ",0".repeat(n)))),
        ),
        (
            targets::request::run,
            Box::new(move |n| settings(format!(r#"{{"k":[{}0]}}"#, r#"{"a":{}},"#.repeat(n)))),
        ),
        (
            targets::request::run,
            Box::new(move |n| {
                settings(format!(
                    r#"{{{}"k":0}}"#,
                    (0..n).map(|n| format!(r#""{n}":0,"#)).collect::<String>()
                ))
            }),
        ),
        (targets::request::run, Box::new(|n| format!(r#"{{{}"k":0}}"#, r#""a":0,"#.repeat(n)))),
        (targets::request::run, Box::new(|n| "[".repeat(n))),
        (targets::request::run, Box::new(|n| body(1, |_| "1/".repeat(n)))),
        (targets::request::run, Box::new(|n| body(1, |_| "1".repeat(n)))),
        (targets::connection_string::run, Box::new(|n| "AccountName=a;".repeat(n))),
        (targets::connection_string::run, Box::new(|n| ";".repeat(n) + "AccountName=a")),
        (
            targets::connection_string::run,
            Box::new(|n| {
                format!(
                    "BlobEndpoint=https://{}.blob.core.windows.net;SharedAccessSignature=sig=x",
                    "a".repeat(n)
                )
            }),
        ),
        (
            targets::connection_string::run,
            Box::new(|n| format!("AccountName=a;SharedAccessSignature=sig=x{}", "&a=b".repeat(n))),
        ),
        (
            targets::container_uri::run,
            Box::new(|n| format!("https://a.blob.core.windows.net{}?sig=x", "/a".repeat(n))),
        ),
        (
            targets::container_uri::run,
            Box::new(|n| format!("https://{}/container?sig=x", "xn--a.".repeat(n))),
        ),
        (targets::container_uri::run, Box::new(|n| format!("https://xn--{}/container?sig=x", "a".repeat(n)))),
        (
            targets::container_uri::run,
            Box::new(|n| {
                format!("https://account.blob.core.windows.net/container?sig=x{}", "&%41=%42".repeat(n))
            }),
        ),
        (targets::identifier::run, Box::new(|n| "1.".repeat(n))),
        (targets::identifier::run, Box::new(|n| "1/".repeat(n))),
        (
            targets::stored::run,
            Box::new(|n| format!(r#"{{"identifier":"1/2/3","locator":"{}"}}"#, "x".repeat(n))),
        ),
        (
            targets::stored::run,
            Box::new(|n| {
                format!(
                    r#"{{"instances":[{}{{"identifier":"1/2/3"}}],"failures":[],"warnings":[],"next":null}}"#,
                    r#"{"identifier":"1/2/3"},"#.repeat(n)
                )
            }),
        ),
    ];
    for (number, (work, shape)) in shapes.iter().enumerate() {
        let cost = |n: usize| {
            let input = shape(n);
            work(input.as_bytes());
            (input.len(), measure(|| work(input.as_bytes())).1)
        };
        let (small, large) = (cost(1 << 10), cost(1 << 15));
        let limit = small.1.bytes.max(4096) * 2 * large.0 / small.0;
        assert!(large.1.bytes <= limit, "shape {number}: {small:?} {large:?}");
    }
}

/// A name of 40 KiB with ten thousand items below it: a pointer for each would take 400 MB.
#[test]
fn the_cost_of_a_long_name_is_independent_of_the_items_below_it() {
    let _exclusive = exclusive();
    let settings = json!({ "k".repeat(40 << 10): vec![0; 10_000] });
    let text = json!({ "destination": { "type": "x", "settings": settings } }).to_string();
    let (read, cost) = measure(|| ExportRequest::from_json(text.as_bytes()));
    assert!(read.is_ok() && cost.bytes < 64 * text.len(), "{cost:?}");
    let destination = read.unwrap().into_parts().1;
    let provider = AzureBlobProvider::new(AzureBlobPolicy::new());
    let (checked, cost) = measure(|| provider.validate(destination.expose_settings()));
    assert!(checked.is_err() && cost.bytes < 64 * text.len(), "{cost:?}");
}

/// A tree of values takes up to 35 times the memory of its text, 540 MiB for a body of 16 MiB.
#[test]
fn guarantee_5_a_request_takes_at_most_four_times_the_memory_of_its_body() {
    let _exclusive = exclusive();
    const LEN: usize = 4 * MIB;
    let fill = |before: &str, item: &dyn Fn(usize) -> String, after: &str| {
        let mut text = before.to_owned();
        for number in 0.. {
            let item = item(number);
            if text.len() + item.len() + after.len() > LEN {
                break;
            }
            text.push_str(&item);
        }
        // The last item ends with a comma.
        text.pop();
        text + after
    };
    let values = r#"{"source":{"type":"identifiers","settings":{"values":["#;
    let after_values = r#"]}},"destination":{"type":"azureblob","settings":{}}}"#;
    let settings = r#"{"destination":{"type":"azureblob","settings":{"a":["#;
    let bodies = [
        ("one short identifier, repeated", fill(values, &|_| "\"1\",".into(), after_values)),
        ("short identifiers", fill(values, &|n| format!("\"{n}\","), after_values)),
        ("instances", fill(values, &|n| format!("\"1.2.3/4.5/{n}\","), after_values)),
        ("covered identifiers", fill(values, &|n| format!("\"{}/{n}\",", n % 10), after_values)),
        ("escaped identifiers", fill(values, &|n| format!("\"\\u0031{n}\","), after_values)),
        ("numbers in settings", fill(settings, &|_| "0,".into(), "]}}}")),
        ("objects in settings", fill(settings, &|_| r#"{"a":0},"#.into(), "]}}}")),
        ("empty arrays in settings", fill(settings, &|_| "[],".into(), "]}}}")),
        (
            "a long string in settings",
            fill(settings, &|n| if n == 0 { "\"".into() } else { "x".repeat(1000) }, "\"]}}}"),
        ),
        ("an unknown property", fill(r#"{"values":["#, &|_| "0,".into(), "]}")),
        ("numbers as identifiers", fill(values, &|_| "0,".into(), after_values)),
        ("numbers as the type", fill(r#"{"source":{"type":["#, &|_| "0,".into(), "]}}")),
        ("an array", fill("[", &|_| "0,".into(), "]")),
    ];
    for (name, body) in bodies {
        let (_, cost) = measure(|| ExportRequest::from_json(body.as_bytes()).map(drop));
        // Everything that was allocated, freed or not, and the body.
        let total = cost.bytes + body.len();
        assert!(total <= 4 * body.len(), "{name}: {} MiB for {} MiB", total / MIB, body.len() / MIB);
        // Through serde, the length is not known, so buffers grow by doubling.
        let (_, cost) = measure(|| serde_json::from_slice::<ExportRequest>(body.as_bytes()).map(drop));
        assert!(
            cost.bytes <= 4 * body.len(),
            "{name}: {} MiB for {} MiB",
            cost.bytes / MIB,
            body.len() / MIB
        );
    }
}
