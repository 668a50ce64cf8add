//! [`DestinationType`]: a destination type that requests can name, and the schema of its settings.

use serde_json::Value;

/// A destination type that requests can name, and the schema of its settings.
///
/// ```
/// # #[cfg(feature = "azure")] {
/// use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
/// use dicom_export::{ExportEngine, ExportService, MemorySource};
///
/// let engine = ExportEngine::builder(MemorySource::new())
///     .destination("azureblob", AzureBlobProvider::new(AzureBlobPolicy::new()))
///     .build()?;
/// let types = engine.destination_types();
/// assert_eq!(types[0].name, "azureblob");
/// assert_eq!(types[0].settings_schema.as_ref().unwrap()["type"], "object");
/// # }
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DestinationType {
    /// The name, in lower case. Requests may write it in any case.
    pub name: String,
    /// The JSON Schema of the settings: see [`SinkProvider::settings_schema`](crate::SinkProvider::settings_schema). `None`:
    /// any object.
    pub settings_schema: Option<Value>,
}

impl DestinationType {
    /// Creates a destination type whose settings are any object.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_ascii_lowercase(), settings_schema: None }
    }

    /// Sets the JSON Schema of the settings.
    #[must_use]
    pub fn with_settings_schema(mut self, schema: Value) -> Self {
        self.settings_schema = Some(schema);
        self
    }
}

impl From<&str> for DestinationType {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}
