//! The schema of a destination, with a variant for each destination type.

use std::fmt::Write as _;

use serde_json::Value;
use utoipa::openapi::schema::{
    AdditionalProperties, Discriminator, ObjectBuilder, OneOfBuilder, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::sink::DestinationType;

/// The schema of a destination of one of these types, and the schemas that it refers to, with their names.
pub(super) fn destination_schema(types: &[DestinationType]) -> (Schema, Vec<(String, RefOr<Schema>)>) {
    let variants: Vec<_> = types.iter().map(|one| (component_name(&one.name), variant(one))).collect();
    let references = variants.iter().map(|(component, _)| Ref::from_schema_name(component));
    let mapping =
        types.iter().zip(references.clone()).map(|(one, reference)| (&one.name, reference.ref_location));
    let discriminator = Discriminator::with_mapping("type", mapping);
    let one_of = references.fold(OneOfBuilder::new(), OneOfBuilder::item);
    let one_of = one_of.description(Some("The destination of an export.")).discriminator(Some(discriminator));
    (one_of.into(), variants)
}

/// The name of a destination type's component: letters, digits, `-`, `.` and `_` are allowed in it (OpenAPI 3.1, 4.8.7).
fn component_name(kind: &str) -> String {
    let mut name = String::new();
    for byte in kind.bytes() {
        match byte {
            b'-' | b'.' => name.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            // Writing to a string does not fail.
            _ => _ = write!(name, "_{byte:02x}"),
        }
    }
    name + "Destination"
}

/// The schema of a destination of one type.
fn variant(kind: &DestinationType) -> RefOr<Schema> {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("The destination type, in any case."))
        .enum_values(Some([kind.name.as_str()]));
    let settings = match &kind.settings_schema {
        Some(Value::Object(schema)) => {
            // The members of the schema are written as they are: `Schema` does not have all keywords of JSON Schema.
            let keywords = schema.clone().into_iter().collect();
            ObjectBuilder::new().schema_type(SchemaType::AnyValue).extensions(Some(keywords))
        }
        _ => ObjectBuilder::new().description(Some("The settings of that type, at most 64 KiB.")),
    };
    let object = ObjectBuilder::new()
        .property("type", name)
        .property("settings", settings)
        .required("type")
        .required("settings")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    Schema::from(object).into()
}
