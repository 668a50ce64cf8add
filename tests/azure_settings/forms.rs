//! Forms of the settings.

use crate::*;

#[test]
fn equivalent_container_uris_have_one_location() {
    for given in [
        "https://dicomexport.blob.core.windows.net/export/",
        "https://dicomexport.blob.core.windows.net:443/export",
        "HTTPS://DicomExport.Blob.Core.Windows.Net/export",
        "  https://dicomexport.blob.core.windows.net/export\n",
        "https://dicomexport.blob.core.windows.net/export?",
    ] {
        accepted(production(), by_identity(given), CONTAINER, "managedIdentity");
    }
    let checked = accepted(production(), uri(&format!("{CONTAINER}/?{SAS}")), CONTAINER, "sas");
    assert_eq!(checked.secret.unwrap().expose(), SAS);
}

#[test]
fn names_are_read_in_any_case_and_empty_values_as_absent() {
    for settings in [
        json!({ "BlobContainerUri": CONTAINER, "UseManagedIdentity": true }),
        json!({ "BLOBCONTAINERURI": CONTAINER, "usemanagedidentity": true }),
        json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": true, "connectionString": null,
                "BlobContainerName": null }),
        json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": true, "connectionString": "",
                "BlobContainerName": "" }),
    ] {
        accepted(production(), settings, CONTAINER, "managedIdentity");
    }
    for off in [json!(null), json!(""), json!(false)] {
        let settings = json!({ "blobContainerUri": format!("{CONTAINER}?{SAS}"), "useManagedIdentity": off });
        accepted(production(), settings, CONTAINER, "sas");
    }
    let emulator = json!({ "BlobContainerName": "export", "ConnectionString": "UseDevelopmentStorage=true",
                           "blobContainerUri": "" });
    accepted(development(), emulator, "http://127.0.0.1:10000/devstoreaccount1/export", "emulator");
    refused(production(), json!({ "blobContainerUri": "", "useManagedIdentity": true }), "/blobContainerUri");
}

#[test]
fn unknown_repeated_and_mistyped_properties_are_refused() {
    let mut settings = with_sas(CONTAINER);
    settings["useManagedIdentiy"] = true.into();
    assert!(refused(production(), settings, "/useManagedIdentiy").contains("unknown"));
    let repeated = json!({ "blobContainerUri": CONTAINER, "BlobContainerUri": CONTAINER });
    let error = check(production(), repeated).unwrap_err();
    assert!(error.pointer().unwrap().eq_ignore_ascii_case("/blobContainerUri"), "{error:?}");
    refused(production(), json!({ "blobContainerUri": 7 }), "/blobContainerUri");
    refused(production(), json!({ "blobContainerUri": [CONTAINER] }), "/blobContainerUri");
    let text = json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": "true" });
    refused(production(), text, "/useManagedIdentity");
    let number = json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": 1 });
    refused(production(), number, "/useManagedIdentity");
    refused(production(), json!("https://dicomexport.blob.core.windows.net/export"), "");
    refused(production(), json!(null), "");
}

#[test]
fn container_names_follow_the_rules_of_azure() {
    for name in ["abc", "0ab", "a-b-c", &"x".repeat(63)] {
        let container = format!("https://dicomexport.blob.core.windows.net/{name}");
        accepted(production(), by_identity(&container), &container, "managedIdentity");
    }
    for name in [
        "ab",
        "Export",
        "exp_ort",
        "exp.ort",
        "-export",
        "export-",
        "ex--port",
        "$root",
        "$logs",
        &"x".repeat(64),
    ] {
        refused(
            production(),
            by_identity(&format!("https://dicomexport.blob.core.windows.net/{name}")),
            "/blobContainerUri",
        );
        let mut settings = by_string("UseDevelopmentStorage=true");
        settings["blobContainerName"] = name.into();
        refused(development(), settings, "/blobContainerName");
    }
    for path in ["", "/", "/export/folder", "/export/folder/"] {
        refused(
            production(),
            by_identity(&format!("https://dicomexport.blob.core.windows.net{path}")),
            "/blobContainerUri",
        );
    }
    let mut settings = by_string("UseDevelopmentStorage=true");
    settings["blobContainerName"] = "export/folder".into();
    refused(development(), settings, "/blobContainerName");
}

#[test]
fn queries_that_are_not_a_sas_are_refused() {
    for query in [
        "restype=container",
        "sv=2022-11-02&sp=w",
        "sig=",
        "sig",
        "mysig=abc",
        "a b&sig=x",
        "comp=list&xsig=1",
        "sv&sig=x",
        "sv=%ff&sig=x",
        "sv=x y&sig=x",
        &format!("sv={}&sig=x", "x".repeat(8 << 10)),
    ] {
        let message = refused(production(), uri(&format!("{CONTAINER}?{query}")), "/blobContainerUri");
        assert!(message.contains("not a SAS"), "{message}");
        refused(production(), by_identity(&format!("{CONTAINER}?{query}")), "/blobContainerUri");
    }
}
