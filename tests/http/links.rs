//! The URLs in `href` and `Location`.

use axum::Router;
use dicom_export::ErrorKind;
use dicom_export::http::{self, ApiVersion, BaseUrl, HttpOptions};
use reqwest::Method;

use crate::support::{GatedSink, Server, archive, engine, export_everything};

/// Starts an export with these headers, and returns the part of its link before the id.
async fn link(base_url: BaseUrl, path: &str, headers: &[(&'static str, &'static str)]) -> String {
    let server =
        Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new().base_url(base_url)).await;
    let mut request = server.request(Method::POST, path).json(&export_everything());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = server.send(request).await;
    let (href, id) = (response.body["href"].as_str().unwrap(), response.body["id"].as_str().unwrap());
    assert_eq!(response.header("location"), href);
    href.strip_suffix(id).unwrap().replace(&server.url, "<server>")
}

#[tokio::test]
async fn links_begin_with_the_requests_host() {
    let forwarded = [("forwarded", "host=evil.example;proto=https"), ("x-forwarded-host", "evil.example")];
    assert_eq!(link(BaseUrl::Request, "/export", &forwarded).await, "<server>/v1/operations/");
    let host = [("host", "pacs.example:8042")];
    assert_eq!(link(BaseUrl::Request, "/v2/export", &host).await, "http://pacs.example:8042/v2/operations/");
}

#[tokio::test]
async fn links_use_the_forwarded_headers_of_a_trusted_proxy() {
    let cases: [(&[(&'static str, &'static str)], &str); 8] = [
        (&[], "<server>/v1/operations/"),
        (
            &[("forwarded", "for=1.2.3.4; proto=https; host=pacs.example")],
            "https://pacs.example/v1/operations/",
        ),
        (
            &[("forwarded", r#"For="[::1]:80,;";Host="pacs.example:8443";Proto=HTTPS, host=inner.example"#)],
            "https://pacs.example:8443/v1/operations/",
        ),
        (
            &[
                ("x-forwarded-host", "pacs.example, inner.example"),
                ("x-forwarded-proto", "https, http"),
                ("x-forwarded-prefix", "/dicom/"),
            ],
            "https://pacs.example/dicom/v1/operations/",
        ),
        (&[("x-forwarded-proto", "https"), ("host", "pacs.example")], "https://pacs.example/v1/operations/"),
        // Invalid values are ignored.
        (
            &[
                ("x-forwarded-host", "a@b"),
                ("x-forwarded-proto", "ftp"),
                ("x-forwarded-prefix", "//evil.example"),
            ],
            "<server>/v1/operations/",
        ),
        (&[("forwarded", r#"host="un\"closed"#)], "<server>/v1/operations/"),
        (&[("x-forwarded-host", "a b"), ("x-forwarded-prefix", "/x?y")], "<server>/v1/operations/"),
    ];
    for (headers, expected) in cases {
        assert_eq!(link(BaseUrl::Forwarded, "/v1/export", headers).await, expected, "{headers:?}");
    }
}

#[tokio::test]
async fn links_begin_with_the_configured_base_url() {
    let base = || BaseUrl::configured("https://pacs.example/dicom/").unwrap();
    let host = [("host", "inner.example")];
    assert_eq!(link(base(), "/export", &host).await, "https://pacs.example/dicom/v1/operations/");
    assert_eq!(link(base(), "/v2/export", &host).await, "https://pacs.example/dicom/v2/operations/");
    for wrong in
        ["", "pacs.example", "/dicom", "ftp://a", "https://user@a", "https://a?b", "https://a#b", "https://"]
    {
        assert_eq!(BaseUrl::configured(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
    }
}

#[tokio::test]
async fn links_keep_the_prefix_of_a_nested_router() {
    let nested =
        |version| http::routes(engine(archive(3), GatedSink::new(true)), HttpOptions::new(), version);
    let app = Router::new()
        .nest("/v1/partitions/{partition}", nested(ApiVersion::V1))
        .nest("/v2/partitions/{partition}", nested(ApiVersion::V2))
        .nest("/dicom", http::router(engine(archive(3), GatedSink::new(true)), HttpOptions::new()))
        .fallback(http::not_found);
    let mut server = Server::serve(app).await;
    for (prefix, links, completed) in [
        ("/v1/partitions/north", "/v1/partitions/north", "completed"),
        ("/v2/partitions/v1", "/v2/partitions/v1", "succeeded"),
        ("/v2/partitions/a%2Fb", "/v2/partitions/a%2Fb", "succeeded"),
        ("/dicom", "/dicom/v1", "completed"),
        ("/dicom/v2", "/dicom/v2", "succeeded"),
    ] {
        server.prefix = prefix.to_owned();
        let response = server.post(&format!("{prefix}/export"), &export_everything()).await;
        let href = format!("{}{links}/operations/{}", server.url, response.body["id"].as_str().unwrap());
        assert_eq!(response.body["href"], href);
        server.prefix = links.to_owned();
        assert_eq!(server.wait(&href).await["status"], completed);
    }
    let nothing = server.client.get(format!("{}/v3/export", server.url)).send().await.unwrap();
    assert_eq!(nothing.status(), 404);
    assert_eq!(nothing.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_request_without_a_host_is_400() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    let mut stream = tokio::net::TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let request = b"POST /export HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.0 400 ") && response.contains("no 'Host' header"), "{response}");
}
