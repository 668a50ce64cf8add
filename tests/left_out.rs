//! Reports the test binaries that a plain `cargo test` omits because they need more than the default features.

macro_rules! left_out {
    ($($binary:ident needs $($feature:literal)+;)*) => {$(
        #[cfg(not(all($(feature = $feature),+)))]
        #[test]
        #[ignore = "needs more features: tests/run.sh"]
        fn $binary() {
            panic!(concat!("needs", $(" ", $feature),+, ": run tests/run.sh"));
        }
    )*};
}

left_out! {
    azurite needs "azure" "testing";
    command needs "azure" "fs" "redb" "testing";
    conformance needs "fs" "object_store" "testing";
    dicomweb needs "dicomweb" "testing";
    directory needs "fs" "testing";
    hostile needs "azure" "dicomweb" "fs" "http" "redb" "testing";
    http needs "azure" "fs" "http" "testing";
    identity needs "testing";
    invariants needs "fs" "object_store" "testing";
    object_store needs "object_store" "testing";
    orthanc needs "azure" "dicomweb" "testing";
    postgres needs "azure" "fs" "http" "postgres" "testing";
    privacy needs "azure" "dicomweb" "fs" "http" "postgres" "redb" "restate" "testing";
    redb needs "redb" "testing";
    restate needs "azure" "fs" "http" "restate" "testing";
    soak needs "azure" "testing";
}
