//! The command line.

use std::sync::Arc;

use dicom_export::OperationId;
use dicom_export::object_store::ObjectStore;
use dicom_export::object_store::azure::MicrosoftAzureBuilder;
use dicom_export::object_store::local::LocalFileSystem;
use lexopt::prelude::*;
use reqwest::Url;

pub(crate) const HELP: &str = "\
Compares the blobs of an export, in a container or a folder, with its manifest, manifest.jsonl.

usage: verify --destination DIR|CONTAINER_URI --operation OPERATION_ID [OPTIONS]

  --destination DIR            the folder to which the export wrote
  --destination CONTAINER_URI  the Azure Blob container, with a SAS that may read and list as its query
  --operation OPERATION_ID     the export, which wrote a manifest (--manifest) and has ended
  --managed-identity           read with the managed identity of this machine
  --development                permit http, for the storage emulator on this machine

Every blob is read. Each difference is printed to stdout: missing, changed or extra with the name of the blob, or
unreadable with the line of the manifest. Exit status: 0 no difference, 3 differences, 1 the check could not be completed,
2 invalid arguments, an unusable destination, or no manifest. Memory: about 500 bytes per instance.
";

pub(crate) struct Args {
    destination: String,
    pub(crate) operation: OperationId,
    managed_identity: bool,
    development: bool,
}

impl Args {
    /// `None`: print the help. An error contains no secret.
    pub(crate) fn parse() -> Result<Option<Self>, String> {
        let mut parser = lexopt::Parser::from_env();
        let (mut destination, mut operation) = (None, None);
        let (mut managed_identity, mut development) = (false, false);
        let string = |parser: &mut lexopt::Parser, option: &str| {
            let value = parser.value().map_err(|error| error.to_string())?;
            value.into_string().map_err(|_| format!("{option} is not UTF-8"))
        };
        loop {
            let argument = match parser.next() {
                Ok(Some(argument)) => argument,
                Ok(None) => break,
                Err(_) => return Err("an option that does not take a value has one".to_owned()),
            };
            match argument {
                Long("help") | Short('h') => return Ok(None),
                Long("destination") => destination = Some(string(&mut parser, "--destination")?),
                Long("operation") => {
                    let id = string(&mut parser, "--operation")?.parse();
                    operation = Some(id.map_err(|error| format!("--operation: {error}"))?);
                }
                Long("managed-identity") => managed_identity = true,
                Long("development") => development = true,
                // The value may be a secret.
                Value(_) => return Err("unexpected argument without an option; see --help".to_owned()),
                other => return Err(other.unexpected().to_string()),
            }
        }
        Ok(Some(Self {
            destination: destination.ok_or("--destination is missing")?,
            operation: operation.ok_or("--operation is missing")?,
            managed_identity,
            development,
        }))
    }

    pub(crate) fn store(&self) -> Result<Arc<dyn ObjectStore>, String> {
        if self.destination.contains("://") {
            return Ok(Arc::new(self.container()?.build().map_err(|_| "the container cannot be used")?));
        }
        if self.destination.contains("sig=") {
            return Err("--destination is neither a folder nor an http or https URI".to_owned());
        }
        let folder = LocalFileSystem::new_with_prefix(&self.destination);
        Ok(Arc::new(folder.map_err(|_| "--destination is a folder that does not exist")?))
    }

    fn container(&self) -> Result<MicrosoftAzureBuilder, String> {
        let unusable = "--destination is not the URI of a container";
        let uri = Url::parse(&self.destination).map_err(|_| unusable)?;
        let host = uri.host_str().ok_or(unusable)?;
        if uri.scheme() != "https" && !(uri.scheme() == "http" && self.development) {
            return Err("--destination is not an https URI; http requires --development".to_owned());
        }
        let segments: Vec<_> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
        let origin = uri.origin().ascii_serialization();
        // The path of an emulator's URI begins with the account.
        let (account, container, endpoint) = match *segments {
            [container] => (host.split('.').next().unwrap_or(host), container, origin),
            [account, container] => (account, container, format!("{origin}/{account}")),
            _ => return Err(unusable.to_owned()),
        };
        let builder = MicrosoftAzureBuilder::new()
            .with_endpoint(endpoint)
            .with_allow_http(self.development)
            .with_account(account)
            .with_container_name(container);
        // A plus sign in a SAS is not a space.
        let query = uri.query().map(|query| query.replace('+', "%2B"));
        Ok(match (query, self.managed_identity) {
            (Some(_), true) => return Err("--managed-identity cannot be combined with a SAS".to_owned()),
            (Some(sas), false) => {
                let mut pairs = uri.clone();
                pairs.set_query(Some(&sas));
                let pairs: Vec<_> = pairs.query_pairs().into_owned().collect();
                builder.with_sas_authorization(pairs)
            }
            (None, true) => builder.with_credential_type("managed_identity"),
            (None, false) => builder.with_skip_signature(true),
        })
    }
}
