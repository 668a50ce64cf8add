//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use dicom_export::{Checksums, DicomIdentifier, ExportDestination, ExportSource, IdentityCheck, OperationId};
use lexopt::prelude::*;
use serde_json::json;

pub(crate) const HELP: &str = "\
Exports DICOM files from a folder or a DICOMweb server to a folder or an Azure Blob container.

usage: export --source SOURCE DESTINATION [OPTIONS]

source:
  --source DIR                     a folder of DICOM files
  --source http(s)://.../dicom-web a DICOMweb server (feature dicomweb); credentials are read from the environment:
                                   DICOMWEB_USER and DICOMWEB_PASSWORD, or DICOMWEB_TOKEN

destination:
  --destination DIR                a folder
  --destination CONTAINER_URI      an Azure Blob container, with a SAS as its query
  --connection-string S --container NAME
                                   the same by an account's connection string

options:
  --managed-identity               write with this machine's managed identity
  --identifier I                   <study>[/<series>[/<sop instance>]]; may be repeated; none: everything
  --identifiers-file FILE          identifiers, one a line
  --development                    allow the storage emulator and http on this machine
  --concurrency N                  requests at once (default: as many as the destination bears)
  --memory SIZE                    bytes of instances held at once (64MiB), and a quarter
                                   more of small files that a folder's listing reads ahead
  --retry-for SECONDS              how long passing trouble is retried (600)
  --checksums off|sent|always      compare what the destination says it stored with what it was sent (sent); always:
                                   and let it copy nothing by itself
  --check-identity off|warn|enforce
                                   compare each instance with the UIDs that it is listed with (off)
  --manifest                        write manifest.jsonl, which the example verify checks a container against
  --state FILE                     keep the operation here, so that it can be resumed (feature redb)
  --resume OPERATION_ID|last       go on with an operation of the state file; source and destination are given again
  --quiet                          no progress bar

The final status document is written to stdout. Exit status: 0 completed, 3 completed with skips, 1 failed or canceled,
2 bad arguments or an unusable source or destination.
";

pub(crate) struct Args {
    /// A folder or a URL.
    pub(crate) source: PathBuf,
    pub(crate) destination: Destination,
    pub(crate) wanted: ExportSource,
    pub(crate) development: bool,
    pub(crate) concurrency: Option<usize>,
    pub(crate) memory: Option<u64>,
    pub(crate) retry_for: Option<Duration>,
    pub(crate) checksums: Checksums,
    pub(crate) identity: IdentityCheck,
    pub(crate) manifest: bool,
    pub(crate) quiet: bool,
    pub(crate) state: Option<PathBuf>,
    pub(crate) resume: Option<Resume>,
}

/// Which operation of the state file to go on with.
pub(crate) enum Resume {
    Operation(OperationId),
    /// The newest.
    Last,
}

pub(crate) enum Destination {
    Folder(PathBuf),
    Azure(ExportDestination),
}

/// What was given for the destination.
#[derive(Default)]
struct Given {
    destination: Option<String>,
    connection_string: Option<String>,
    container: Option<String>,
    managed_identity: bool,
}

impl Args {
    /// `None`: help is wanted. An error is one line and repeats no secret.
    pub(crate) fn parse() -> Result<Option<Self>, String> {
        let mut parser = lexopt::Parser::from_env();
        let (mut source, mut given, mut identifiers) = (None, Given::default(), None::<Vec<_>>);
        let (mut concurrency, mut memory, mut retry_for) = (None, None, None);
        let (mut development, mut quiet) = (false, false);
        let (mut state, mut resume) = (None, None);
        let (mut checksums, mut identity, mut manifest) =
            (Checksums::default(), IdentityCheck::default(), false);
        while let Some(argument) = parser.next().map_err(unparsed)? {
            match argument {
                Long("help") | Short('h') => return Ok(None),
                Long("source") => source = Some(PathBuf::from(parser.value().map_err(text)?)),
                Long("destination") => given.destination = Some(string(&mut parser, "--destination")?),
                Long("connection-string") => {
                    given.connection_string = Some(string(&mut parser, "--connection-string")?);
                }
                Long("container") => given.container = Some(string(&mut parser, "--container")?),
                Long("managed-identity") => given.managed_identity = true,
                Long("identifier") => {
                    let value = string(&mut parser, "--identifier")?;
                    identifiers.get_or_insert_default().push(identifier(&value, "--identifier")?);
                }
                Long("identifiers-file") => {
                    let path = PathBuf::from(parser.value().map_err(text)?);
                    identifiers.get_or_insert_default().extend(read_identifiers(&path)?);
                }
                Long("development") => development = true,
                Long("quiet") => quiet = true,
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
                Long("state") => state = Some(PathBuf::from(parser.value().map_err(text)?)),
                Long("resume") => {
                    resume = Some(match string(&mut parser, "--resume")?.as_str() {
                        "last" => Resume::Last,
                        id => Resume::Operation(id.parse().map_err(|fault| format!("--resume: {fault}"))?),
                    });
                }
                Long("concurrency") => concurrency = Some(number(&mut parser, "--concurrency")?),
                Long("memory") => {
                    let size = string(&mut parser, "--memory")?;
                    let size = size.parse::<ByteSize>().ok().filter(|size| size.0 > 0);
                    memory = Some(size.ok_or("--memory is a size like 64MiB")?.0);
                }
                Long("retry-for") => {
                    let seconds = string(&mut parser, "--retry-for")?.parse();
                    let seconds: u32 = seconds.map_err(|_| "--retry-for is a number of seconds")?;
                    retry_for = Some(Duration::from_secs(seconds.into()));
                }
                // lexopt would repeat a value, which may be a secret that lost its option.
                Value(_) => return Err("there is an argument without an option; see --help".to_owned()),
                other => return Err(text(other.unexpected())),
            }
        }
        if resume.is_some() && state.is_none() {
            return Err("--resume needs --state".to_owned());
        }
        if resume.is_some() && identifiers.is_some() {
            return Err("--resume goes on with the operation's own identifiers".to_owned());
        }
        let wanted = match identifiers {
            None => ExportSource::Everything,
            Some(identifiers) => ExportSource::identifiers(identifiers).map_err(text)?,
        };
        Ok(Some(Self {
            source: source.ok_or("--source is missing")?,
            destination: given.check()?,
            wanted,
            development,
            concurrency,
            memory,
            retry_for,
            checksums,
            identity,
            manifest,
            quiet,
            state,
            resume,
        }))
    }
}

impl Given {
    /// Parts folders from containers; what is wrong with a container's settings is the library's to say.
    fn check(self) -> Result<Destination, String> {
        let scheme = self.destination.as_deref().and_then(scheme);
        match (self.destination, scheme.as_deref()) {
            (None, _) if self.connection_string.is_none() && self.container.is_none() => {
                Err("--destination is missing".to_owned())
            }
            (Some(folder), None) if !folder.contains("sig=") => {
                if self.connection_string.is_some() || self.container.is_some() || self.managed_identity {
                    return Err("--destination is a folder, which takes no credential".to_owned());
                }
                Ok(Destination::Folder(folder.into()))
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
            // A URI with a slip in it is no folder, or folders would bear its SAS in their names.
            _ => Err("--destination is neither a folder nor an http or https URI".to_owned()),
        }
    }
}

/// What stands before `://`, in lower case.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| scheme.to_ascii_lowercase())
}

fn text(fault: impl std::fmt::Display) -> String {
    fault.to_string()
}

/// lexopt would repeat a value that belongs to no option, which may be a secret.
fn unparsed(fault: lexopt::Error) -> String {
    match fault {
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        fault => text(fault),
    }
}

/// A value that is text; the message never repeats it.
fn string(parser: &mut lexopt::Parser, option: &str) -> Result<String, String> {
    parser.value().map_err(text)?.into_string().map_err(|_| format!("{option} is not UTF-8"))
}

fn choice<T, const N: usize>(
    parser: &mut lexopt::Parser,
    option: &str,
    choices: [(&str, T); N],
) -> Result<T, String> {
    let value = string(parser, option)?;
    let names = choices.each_ref().map(|(name, _)| *name).join(", ");
    let chosen = choices.into_iter().find(|(name, _)| *name == value).map(|(_, choice)| choice);
    chosen.ok_or_else(|| format!("{option} is one of {names}"))
}

fn number(parser: &mut lexopt::Parser, option: &str) -> Result<usize, String> {
    let number = string(parser, option)?.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{option} is a whole number above zero"))
}

fn identifier(value: &str, place: &str) -> Result<DicomIdentifier, String> {
    value.parse().map_err(|fault| format!("{place} is not an identifier: {fault}"))
}

fn read_identifiers(path: &std::path::Path) -> Result<Vec<DicomIdentifier>, String> {
    let lines = std::fs::read_to_string(path).map_err(|fault| format!("--identifiers-file: {fault}"))?;
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| identifier(line, &format!("--identifiers-file, line {},", at + 1))).collect()
}
