//! A DICOMweb server's responses to searches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dicom_export::InstanceSource;
use dicom_export::source::{ListRequest, Scope};

/// How many requests get the input as their response; others get an empty one.
const RESPONSES: usize = 8;

pub(crate) fn run(input: &[u8]) {
    let (body, asked, given) = (input.to_vec(), Arc::new(Mutex::new(Vec::new())), AtomicUsize::new(0));
    let paths = Arc::clone(&asked);
    let source = super::server::source_for(Arc::new(move |path| {
        paths.lock().unwrap().push(path.to_owned());
        let first = path.contains("offset=0") && given.fetch_add(1, Ordering::Relaxed) < RESPONSES;
        first.then(|| ("application/dicom+json".to_owned(), body.clone()))
    }));
    super::RUNTIME.block_on(async {
        let identifier = "1.2.3".parse().unwrap();
        for scope in [Scope::Identifier(&identifier), Scope::Everything] {
            let Ok(page) = source.list(ListRequest::new(scope, None, 20)).await else { continue };
            assert!(page.instances.len() + page.failures.len() <= 20);
            for instance in &page.instances {
                super::identifier::assert_inside(instance.identifier());
            }
        }
    });
    for path in asked.lock().unwrap().iter() {
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let below =
            path.strip_prefix("/dicom-web/").unwrap_or_else(|| panic!("{path} leaves the service root"));
        let names = ["studies", "series", "instances", "metadata"];
        for (at, part) in below.split('/').enumerate() {
            let uid = part.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !part.ends_with('.');
            assert!(if at % 2 == 0 { names.contains(&part) } else { uid && !part.is_empty() }, "{path}");
        }
    }
}
