//! The JSON Schema of the settings of `s3`.

use serde_json::{Value, json};

/// The schema of what [`read_settings`](super::read_settings) reads, without what the policy decides.
pub(crate) fn settings_schema() -> Value {
    json!({
        "title": "S3Settings",
        "description": "A bucket of Amazon S3 or of a compatible store. Property names are read in any case; `null` and \
            the empty string count as absent.",
        "type": "object",
        "properties": {
            "bucket": {
                "description": "The bucket's name.",
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
                "examples": ["trial7-exports"],
            },
            "prefix": {
                "description": "What all keys begin with.",
                "type": "string",
                "examples": ["exports/trial7"],
            },
            "region": {
                "description": "The bucket's region.",
                "type": "string",
                "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
                "examples": ["eu-central-1"],
            },
            "endpoint": {
                "description": "The endpoint of a compatible store: a scheme and a host. Absent: that of Amazon S3 in `region`.",
                "type": "string",
                "format": "uri",
                "examples": ["https://minio.hospital.example:9000"],
            },
            "accessKeyId": {
                "description": "The id of an access key.",
                "type": "string",
                "format": "password",
                "writeOnly": true,
                "pattern": "^[!-~]+$",
            },
            "secretAccessKey": {
                "description": "The secret of the access key.",
                "type": "string",
                "format": "password",
                "writeOnly": true,
                "pattern": "^[!-~]+$",
            },
            "sessionToken": {
                "description": "The token of a temporary access key.",
                "type": "string",
                "format": "password",
                "writeOnly": true,
                "pattern": "^[!-~]+$",
            },
            "useInstanceIdentity": {
                "description": "`true`: the server's own identity is used.",
                "type": "boolean",
            },
            "serverSideEncryption": {
                "description": "How S3 encrypts the objects.",
                "type": "string",
                "enum": ["AES256", "aws:kms", "aws:kms:dsse"],
            },
            "sseKmsKeyId": {
                "description": "The id or the ARN of a key of KMS.",
                "type": "string",
                "pattern": "^[!-~]{1,2048}$",
            },
            "storageClass": {
                "description": "The storage class of instances.",
                "type": "string",
                "pattern": "^[A-Z_]{1,64}$",
                "examples": ["STANDARD_IA"],
            },
        },
        "required": ["bucket"],
        "anyOf": [{ "required": ["region"] }, { "required": ["endpoint"] }],
        "dependentRequired": {
            "accessKeyId": ["secretAccessKey"],
            "secretAccessKey": ["accessKeyId"],
            "sessionToken": ["accessKeyId"],
            "sseKmsKeyId": ["serverSideEncryption"],
        },
        "dependentSchemas": {
            "accessKeyId": { "properties": { "useInstanceIdentity": { "const": false } } },
            "sseKmsKeyId": { "properties": { "serverSideEncryption": { "not": { "const": "AES256" } } } },
        },
        "additionalProperties": false,
    })
}
