//! A query contains the fields of a SAS and nothing else, and its expiry can be stored.

use dicom_export::Timestamp;

use crate::*;

/// A container with this SAS: as the query of its URI, and in a connection string.
fn with(sas: &str) -> [(Value, &'static str); 2] {
    [
        (uri(&format!("{CONTAINER}?{sas}")), "/blobContainerUri"),
        (by_string(&format!("AccountName=dicomexport;SharedAccessSignature={sas}")), "/connectionString"),
    ]
}

fn refused_everywhere(sas: &str, message: &str) {
    for (settings, pointer) in with(sas) {
        let error = refused(production(), settings, pointer);
        assert!(error.contains(message), "{error}");
    }
}

/// Parameters of the REST API were once sent with every request: `comp=block` turned each instance into an uncommitted
/// block, and the export was `completed`.
#[test]
fn query_parameters_that_are_not_sas_fields_are_refused() {
    for parameter in [
        "comp=block&blockid=AAAAAAAA",
        "comp=appendblock",
        "COMP=block",
        "Comp=block",
        "%63omp=block",
        "c%6Fmp=block",
        "%43%4f%4d%50=block",
        "comp%20=block",
        "comp+=block",
        "+comp=block",
        "%00comp=block",
        "comp%00=block",
        "comp=",
        "blockid=AAAAAAAA",
        "restype=container",
        "snapshot=2026-01-01T00:00:00.0000000Z",
        "versionid=2026-01-01T00:00:00.0000000Z",
        "timeout=1",
        "api-version=2011-08-18",
        "prefix=a",
        "where=a",
        "x-ms-version=2011-08-18",
        "x=y",
        "=y",
        "=",
        "sıg=x",
    ] {
        refused_everywhere(&format!("{parameter}&{SAS}"), "not a SAS");
        refused_everywhere(&format!("{SAS}&{parameter}"), "not a SAS");
        refused_everywhere(&SAS.replacen('&', &format!("&{parameter}&"), 1), "not a SAS");
    }
}

#[test]
fn every_field_of_a_sas_is_accepted_in_any_case_and_encoding() {
    let service = "sv=2022-11-02&sr=c&st=2026-01-01&se=2030-01-01&sp=w&sip=168.1.5.60-168.1.5.70&spr=https&si=policy\
                   &ses=scope&sdd=1&rscc=no-cache&rscd=file%3B%20a&rsce=gzip&rscl=en&rsct=text%2Fplain&sig=x";
    let account = "sv=2022-11-02&ss=b&srt=co&sp=w&se=2030-01-01T00:00:00Z&spr=https,http&sig=x%2By%3D";
    let user = "sv=2025-07-05&sr=c&sp=w&se=2030-01-01&skoid=a&sktid=b&skt=2026-01-01&ske=2026-01-02&sks=b&skv=2025-07-05\
                &saoid=c&scid=d&sduoid=e&skdutid=f&sig=x";
    for sas in [service, account, user, "SV=2022-11-02&Sp=w&SIG=x", "%73v=2022-11-02&s%70=w&s%69g=x"] {
        for (settings, _) in with(sas) {
            let validated = accepted(production(), settings, CONTAINER, "sas");
            assert_eq!(validated.secret.unwrap().expose(), sas);
        }
    }
}

#[test]
fn repeated_fields_are_refused() {
    for field in
        ["sv=2022-11-02", "SV=2022-11-02", "%73v=2022-11-02", "se=2031-01-01", "Se=", "sig=x", "SIG=x"]
    {
        refused_everywhere(&format!("{field}&{SAS}"), "repeated field");
        refused_everywhere(&format!("{SAS}&{field}"), "repeated field");
    }
}

/// These were once accepted, and the stored operation could not be read again.
#[test]
fn expiry_that_cannot_be_stored_is_refused() {
    for expiry in [
        "%2B10000-01-01",
        "%2b10000-01-01T00:00Z",
        "+10000-01-01",
        "-0001-01-01",
        "-0001-01-01T00:00Z",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00%2B01:00",
        "%2B262142-12-31",
    ] {
        for name in ["se", "SE", "%73e"] {
            refused_everywhere(&format!("{name}={expiry}&sv=2022-11-02&sp=w&sig=x"), "expiry");
        }
    }
}

#[test]
fn expiry_survives_being_stored() {
    for (expiry, expected) in [
        ("2030-01-01", "2030-01-01T00:00:00.0000000Z"),
        ("2030-01-01T10:30Z", "2030-01-01T10:30:00.0000000Z"),
        ("2030-01-01T10%3A30%3A05.25Z", "2030-01-01T10:30:05.2500000Z"),
        ("2030-01-01T10:30:05+02:00", "2030-01-01T08:30:05.0000000Z"),
        ("0000-01-01", "0000-01-01T00:00:00.0000000Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.0000000Z"),
    ] {
        for (settings, _) in with(&format!("Se={expiry}&sv=2022-11-02&sp=w&sig=x")) {
            let expires = accepted(production(), settings, CONTAINER, "sas").expires.unwrap();
            assert_eq!(expires.to_string(), expected);
            let stored = serde_json::to_string(&expires).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&stored).unwrap(), expires);
        }
    }
    for sas in ["si=policy&sv=2022-11-02&sig=x", "se=tomorrow&sv=2022-11-02&sig=x"] {
        for (settings, _) in with(sas) {
            assert_eq!(accepted(production(), settings, CONTAINER, "sas").expires, None);
        }
    }
}

/// A SAS that was stored before it was validated, or that was damaged since.
#[tokio::test]
async fn stored_sas_with_other_parameters_is_refused() {
    let provider = AzureBlobProvider::new(production());
    let validated = provider.validate(&with_sas(CONTAINER)).unwrap();
    for sas in [format!("comp=block&{SAS}"), format!("{SAS}&SV=2022-11-02"), "nonsense".to_owned()] {
        let opened = provider.open(&stored::operation(&validated), Some(&Secret::new(sas))).await;
        let error = opened.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(!format!("{error:?}").contains("sig"), "{error:?}");
    }
}
