//! Exports a small archive to a folder, as a server that embeds this crate does.
//!
//! `cargo run --example quickstart`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_export::sink::DirectorySink;
use dicom_export::source::DirectorySource;
use dicom_export::{BlobSink, ExportEngine, ExportSource, NewOperation};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use walkdir::WalkDir;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("target/quickstart");
    make_archive(&folder.join("archive"))?;

    // The storage of the server, and the destination.
    let source = DirectorySource::open(folder.join("archive"))?;
    let container: Arc<dyn BlobSink> = Arc::new(DirectorySink::open(folder.join("container"))?);

    // Study 1, and one series of study 2. `ExportSource::Everything` exports the whole archive.
    let identifiers = ["2.25.1".parse()?, "2.25.2/2.25.20".parse()?];
    let engine = ExportEngine::builder(source).build()?;
    let started = engine.start(NewOperation::new(ExportSource::identifiers(identifiers)?, container)).await?;

    // The operation runs in the background. A server returns `started` to its client, which polls the status.
    let ended = engine.wait(started.operation_id).await?;
    println!("{}", serde_json::to_string_pretty(&ended)?);
    for entry in
        WalkDir::new(folder.join("container").join(ended.operation_id.to_string())).sort_by_file_name()
    {
        let entry = entry?;
        println!("{:indent$}{}", "", entry.file_name().display(), indent = 2 * entry.depth());
    }
    Ok(())
}

/// Writes two studies, each with two series of three CT slices, as DICOM Part 10 files.
fn make_archive(folder: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    for n in 0..12 {
        let (study, series) = (1 + n / 6, 10 * (1 + n / 6) + n / 3 % 2);
        let sop = format!("2.25.{}", 100 * series + n);
        let mut slice = InMemDicomObject::new_empty();
        slice.put_str(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
        slice.put_str(tags::SOP_INSTANCE_UID, VR::UI, sop.as_str());
        slice.put_str(tags::STUDY_INSTANCE_UID, VR::UI, format!("2.25.{study}"));
        slice.put_str(tags::SERIES_INSTANCE_UID, VR::UI, format!("2.25.{series}"));
        slice.put_str(tags::MODALITY, VR::CS, "CT");
        let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        slice.with_meta(meta)?.write_to_file(folder.join(format!("{n}.dcm")))?;
    }
    Ok(())
}
