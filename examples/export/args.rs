//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use dicom_export::{Checksums, DicomIdentifier, ExportDestination, ExportSource, IdentityCheck, OperationId};
use lexopt::prelude::*;
use serde_json::json;

pub(crate) const HELP: &str = "\
Exports DICOM files from a folder, a DICOMweb server or a bucket to a folder, an Azure Blob container or a bucket.

usage: export --source SOURCE DESTINATION [OPTIONS]

source:
  --source DIR                     a folder of DICOM files
  --source http(s)://.../dicom-web a DICOMweb server (feature dicomweb), with the credentials in the environment variables
                                   DICOMWEB_USER and DICOMWEB_PASSWORD, or DICOMWEB_TOKEN
  --source s3://BUCKET/PREFIX      a bucket of Amazon S3 or a compatible store (feature s3), with objects
                                   <study>/<series>/<sop instance>.dcm
  --source gs://BUCKET/PREFIX      a bucket of Google Cloud Storage (feature gcs), likewise
  --layout LAYOUT                  how instances are found in a bucket: a template of the keys below PREFIX, for example
                                   'studies/{study}/{series}/{instance}', or the key of an index below PREFIX

destination:
  --destination DIR                a folder
  --destination s3://BUCKET/PREFIX a bucket of Amazon S3 or a compatible store (feature s3)
  --destination gs://BUCKET/PREFIX a bucket of Google Cloud Storage (feature gcs)
  --destination CONTAINER_URI      an Azure Blob container, with a SAS as its query
  --connection-string S --container NAME
                                   an Azure Blob container, with the connection string of its account

buckets:
  For s3://, the region, the endpoint and the credentials are read from the environment variables AWS_REGION, AWS_ENDPOINT_URL,
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. Without an access key, the identity of this machine is used.
  For gs://, the application default credentials are used.

options:
  --managed-identity               write with the managed identity of this machine
  --identifier I                   <study>[/<series>[/<sop instance>]]; may be repeated; default: everything
  --identifiers-file FILE          a file with one identifier per line
  --development                    permit the storage emulator, and stores on this machine over http
  --root-certificate FILE          trust these certificate authorities (PEM) for a destination
  --concurrency N                  concurrent requests (default: adapted to the destination)
  --memory SIZE                    memory budget for instances (default: 64MiB); the listing of a folder uses a quarter
                                   more for small files
  --retry-for SECONDS              how long temporary failures are retried without a success (default: 600)
  --checksums off|sent|always      compare what the destination reports to have stored with what was sent (default: sent);
                                   always: also disable copies at the destination
  --check-identity off|warn|enforce
                                   compare each instance with the UIDs that it is listed with (default: off)
  --manifest                       write manifest.jsonl, with which the example verify compares a container
  --state FILE                     keep the operation in this file, so that it can be resumed (feature redb)
  --resume OPERATION_ID|last       resume an operation of the state file; source and destination are given again
  --quiet                          no progress bar
  --index FILE                     keep an index of the folder in this file, so that resumptions and exports by identifier
                                   do not read the files' heads again; it contains the files' paths
  --show-skipped                   prints the paths of skipped files of a folder; they can contain names

The final status document is written to stdout. Exit status: 0 completed, 3 completed with skips, 1 failed or canceled,
2 invalid arguments or an unusable source or destination.
";

pub(crate) struct Args {
    /// A folder or a URL.
    pub(crate) source: PathBuf,
    pub(crate) destination: Destination,
    pub(crate) export_source: ExportSource,
    pub(crate) development: bool,
    pub(crate) root_certificate: Option<Vec<u8>>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) memory: Option<u64>,
    pub(crate) retry_for: Option<Duration>,
    pub(crate) checksums: Checksums,
    pub(crate) identity: IdentityCheck,
    pub(crate) manifest: bool,
    pub(crate) quiet: bool,
    pub(crate) show_skipped: bool,
    pub(crate) index: Option<PathBuf>,
    pub(crate) layout: Option<String>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) resume: Option<Resume>,
}

/// The operation of the state file to resume.
pub(crate) enum Resume {
    Operation(OperationId),
    /// The newest operation.
    Last,
}

pub(crate) enum Destination {
    Folder(PathBuf),
    Azure(ExportDestination),
    /// `s3://BUCKET/PREFIX`.
    S3(String),
    /// `gs://BUCKET/PREFIX`.
    Gcs(String),
}

/// The options that define the destination.
#[derive(Default)]
struct DestinationArgs {
    destination: Option<String>,
    connection_string: Option<String>,
    container: Option<String>,
    managed_identity: bool,
}

impl Args {
    /// `None`: print the help. An error is one line and contains no secret.
    pub(crate) fn parse() -> Result<Option<Self>, String> {
        let mut parser = lexopt::Parser::from_env();
        let (mut source, mut destination, mut identifiers) =
            (None, DestinationArgs::default(), None::<Vec<_>>);
        let (mut concurrency, mut memory, mut retry_for) = (None, None, None);
        let (mut development, mut quiet, mut show_skipped) = (false, false, false);
        let (mut state, mut resume, mut root_certificate) = (None, None, None);
        let (mut index, mut layout) = (None, None);
        let (mut checksums, mut identity, mut manifest) =
            (Checksums::default(), IdentityCheck::default(), false);
        while let Some(argument) = parser.next().map_err(parse_error)? {
            match argument {
                Long("help") | Short('h') => return Ok(None),
                Long("source") => source = Some(PathBuf::from(parser.value().map_err(message)?)),
                Long("destination") => destination.destination = Some(string(&mut parser, "--destination")?),
                Long("connection-string") => {
                    destination.connection_string = Some(string(&mut parser, "--connection-string")?);
                }
                Long("container") => destination.container = Some(string(&mut parser, "--container")?),
                Long("managed-identity") => destination.managed_identity = true,
                Long("identifier") => {
                    let value = string(&mut parser, "--identifier")?;
                    identifiers.get_or_insert_default().push(identifier(&value, "--identifier")?);
                }
                Long("identifiers-file") => {
                    let path = PathBuf::from(parser.value().map_err(message)?);
                    identifiers.get_or_insert_default().extend(read_identifiers(&path)?);
                }
                Long("development") => development = true,
                Long("root-certificate") => {
                    let pem = std::fs::read(parser.value().map_err(message)?);
                    root_certificate = Some(pem.map_err(|error| format!("--root-certificate: {error}"))?);
                }
                Long("quiet") => quiet = true,
                Long("show-skipped") => show_skipped = true,
                Long("index") => index = Some(PathBuf::from(parser.value().map_err(message)?)),
                Long("layout") => layout = Some(string(&mut parser, "--layout")?),
                Long("checksums") => {
                    let choices =
                        [("off", Checksums::Off), ("sent", Checksums::Sent), ("always", Checksums::Always)];
                    checksums = choice(&mut parser, "--checksums", choices)?;
                }
                Long("check-identity") => {
                    let choices = [
                        ("off", IdentityCheck::Off),
                        ("warn", IdentityCheck::Warn),
                        ("enforce", IdentityCheck::Enforce),
                    ];
                    identity = choice(&mut parser, "--check-identity", choices)?;
                }
                Long("manifest") => manifest = true,
                Long("state") => state = Some(PathBuf::from(parser.value().map_err(message)?)),
                Long("resume") => {
                    resume = Some(match string(&mut parser, "--resume")?.as_str() {
                        "last" => Resume::Last,
                        id => Resume::Operation(id.parse().map_err(|error| format!("--resume: {error}"))?),
                    });
                }
                Long("concurrency") => concurrency = Some(number(&mut parser, "--concurrency")?),
                Long("memory") => {
                    let size = string(&mut parser, "--memory")?;
                    let size = size.parse::<ByteSize>().ok().filter(|size| size.0 > 0);
                    memory = Some(size.ok_or("--memory must be a size such as 64MiB")?.0);
                }
                Long("retry-for") => {
                    let seconds = string(&mut parser, "--retry-for")?.parse();
                    let seconds: u32 = seconds.map_err(|_| "--retry-for must be a number of seconds")?;
                    retry_for = Some(Duration::from_secs(seconds.into()));
                }
                // lexopt's message would contain the value, which may be a secret.
                Value(_) => return Err("unexpected argument without an option; see --help".to_owned()),
                other => return Err(message(other.unexpected())),
            }
        }
        if resume.is_some() && state.is_none() {
            return Err("--resume requires --state".to_owned());
        }
        if resume.is_some() && identifiers.is_some() {
            return Err("--resume cannot be combined with identifiers".to_owned());
        }
        let export_source = match identifiers {
            None => ExportSource::Everything,
            Some(identifiers) => ExportSource::identifiers(identifiers).map_err(message)?,
        };
        Ok(Some(Self {
            source: source.ok_or("--source is missing")?,
            destination: destination.parse()?,
            export_source,
            development,
            root_certificate,
            concurrency,
            memory,
            retry_for,
            checksums,
            identity,
            manifest,
            quiet,
            show_skipped,
            index,
            layout,
            state,
            resume,
        }))
    }
}

impl DestinationArgs {
    /// Distinguishes folders from containers. The library validates the settings of containers.
    fn parse(self) -> Result<Destination, String> {
        let scheme = self.destination.as_deref().and_then(scheme);
        match (self.destination, scheme.as_deref()) {
            (None, _) if self.connection_string.is_none() && self.container.is_none() => {
                Err("--destination is missing".to_owned())
            }
            (Some(folder), None) if !folder.contains("sig=") => {
                if self.connection_string.is_some() || self.container.is_some() || self.managed_identity {
                    return Err("--destination is a folder and accepts no credential".to_owned());
                }
                Ok(Destination::Folder(folder.into()))
            }
            (Some(url), Some(scheme @ ("s3" | "gs"))) => {
                if self.connection_string.is_some() || self.container.is_some() || self.managed_identity {
                    return Err(
                        "--destination is a bucket, whose credentials are in the environment".to_owned()
                    );
                }
                Ok(if scheme == "s3" { Destination::S3(url) } else { Destination::Gcs(url) })
            }
            (uri, Some("http" | "https")) | (uri @ None, None) => {
                let settings = json!({
                    "blobContainerUri": uri,
                    "connectionString": self.connection_string,
                    "blobContainerName": self.container,
                    "useManagedIdentity": self.managed_identity,
                });
                Ok(Destination::Azure(ExportDestination::new(ExportDestination::AZURE_BLOB, settings)))
            }
            // A misspelt URI is not treated as a folder, because its SAS would become part of a folder's name.
            _ => Err("--destination is neither a folder nor an http, https, s3 or gs URI".to_owned()),
        }
    }
}

/// The text before `://`, in lower case.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| scheme.to_ascii_lowercase())
}

fn message(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// lexopt's message would contain an unexpected value, which may be a secret.
fn parse_error(error: lexopt::Error) -> String {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} does not take a value"),
        error => message(error),
    }
}

/// The value of an option as text. The error does not contain it.
fn string(parser: &mut lexopt::Parser, option: &str) -> Result<String, String> {
    parser.value().map_err(message)?.into_string().map_err(|_| format!("{option} is not UTF-8"))
}

fn choice<T, const N: usize>(
    parser: &mut lexopt::Parser,
    option: &str,
    choices: [(&str, T); N],
) -> Result<T, String> {
    let value = string(parser, option)?;
    let names = choices.each_ref().map(|(name, _)| *name).join(", ");
    let chosen = choices.into_iter().find(|(name, _)| *name == value).map(|(_, choice)| choice);
    chosen.ok_or_else(|| format!("{option} must be one of {names}"))
}

fn number(parser: &mut lexopt::Parser, option: &str) -> Result<usize, String> {
    let number = string(parser, option)?.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{option} must be a whole number above zero"))
}

fn identifier(value: &str, location: &str) -> Result<DicomIdentifier, String> {
    value.parse().map_err(|error| format!("{location} is not an identifier: {error}"))
}

fn read_identifiers(path: &std::path::Path) -> Result<Vec<DicomIdentifier>, String> {
    let lines = std::fs::read_to_string(path).map_err(|error| format!("--identifiers-file: {error}"))?;
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| identifier(line, &format!("--identifiers-file, line {},", at + 1))).collect()
}
