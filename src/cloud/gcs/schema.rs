//! The JSON Schema of the settings of `googlecloudstorage`.

use serde_json::{Value, json};

/// The schema of what [`read_settings`](super::read_settings) reads, without what the policy decides.
pub(crate) fn settings_schema() -> Value {
    json!({
        "title": "GoogleCloudStorageSettings",
        "description": "A bucket of Google Cloud Storage. Property names are read in any case; `null` and the empty string \
            count as absent.",
        "type": "object",
        "properties": {
            "bucket": {
                "description": "The bucket's name.",
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]$",
                "examples": ["trial7-exports"],
            },
            "prefix": {
                "description": "What all keys begin with.",
                "type": "string",
                "examples": ["exports/trial7"],
            },
            "serviceAccountKey": {
                "description": "The key of a service account: the JSON document that Google provides, as an object or as text.",
                "writeOnly": true,
                "anyOf": [
                    { "type": "string", "format": "password" },
                    {
                        "type": "object",
                        "properties": {
                            "client_email": { "type": "string" },
                            "private_key": { "type": "string", "format": "password" },
                            "private_key_id": { "type": "string" },
                        },
                        "required": ["client_email", "private_key", "private_key_id"],
                    },
                ],
            },
            "useInstanceIdentity": {
                "description": "`true`: the server's own identity is used.",
                "type": "boolean",
            },
        },
        "required": ["bucket"],
        "oneOf": [
            { "required": ["serviceAccountKey"] },
            { "properties": { "useInstanceIdentity": { "const": true } }, "required": ["useInstanceIdentity"] },
        ],
        "additionalProperties": false,
    })
}
