//! The JSON Schema of the settings of `azureblob`.

use serde_json::{Value, json};

/// The schema of what [`read_settings`](super::settings::read_settings) reads, without what the policy decides.
pub(super) fn settings_schema() -> Value {
    json!({
        "title": "AzureBlobSettings",
        "description": "A container of Azure Blob Storage, by its URI or by a connection string. Property names are read in \
            any case; `null` and the empty string count as absent.",
        "type": "object",
        "properties": {
            "blobContainerUri": {
                "description": "The URI of the container, with a SAS as its query unless another credential is used.",
                "type": "string",
                "format": "uri",
                "writeOnly": true,
                "examples": ["https://account.blob.core.windows.net/container"],
            },
            "connectionString": {
                "description": "The connection string of the storage account.",
                "type": "string",
                "format": "password",
                "writeOnly": true,
            },
            "blobContainerName": {
                "description": "The name of the container, for a connection string.",
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$",
                "examples": ["container"],
            },
            "useManagedIdentity": {
                "description": "`true`: the server's own identity is used, and the URI has no SAS.",
                "type": "boolean",
            },
        },
        "oneOf": [{ "required": ["blobContainerUri"] }, { "required": ["connectionString"] }],
        "dependentRequired": {
            "connectionString": ["blobContainerName"],
            "blobContainerName": ["connectionString"],
        },
        "dependentSchemas": {
            "connectionString": { "properties": { "useManagedIdentity": { "const": false } } },
        },
        "additionalProperties": false,
    })
}
