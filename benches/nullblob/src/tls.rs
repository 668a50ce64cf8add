//! TLS with a certificate authority that is created at the start.

use std::io::{Error, Result};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Creates an authority and a certificate for the loopback interface, and writes the authority's to `folder/ca.pem`.
pub fn acceptor(folder: &Path) -> Result<TlsAcceptor> {
    let mut authority = CertificateParams::new([]).map_err(Error::other)?;
    authority.distinguished_name = name("nullblob authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().map_err(Error::other)?;
    let root = authority.self_signed(&authority_key).map_err(Error::other)?;
    std::fs::write(folder.join("ca.pem"), root.pem())?;

    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let key = KeyPair::generate().map_err(Error::other)?;
    let mut leaf = CertificateParams::new(names).map_err(Error::other)?;
    leaf.distinguished_name = name("nullblob");
    let leaf = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).map_err(Error::other)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .map_err(Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A certificate whose subject equals its issuer's is taken for a self-signed one.
fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}
