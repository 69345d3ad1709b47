//! What Vault answers.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A certificate that was signed. What it says was not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// It, DER.
    pub certificate: Vec<u8>,
    /// That of what signed it, as Vault says, DER.
    pub issuer: Vec<u8>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct SignData {
    certificate: String,
    issuing_ca: String,
}

#[derive(Deserialize)]
struct IssuerData {
    certificate: String,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

fn data<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let read: Result<Answer<T>, _> = serde_json::from_slice(body);
    read.map(|answer| answer.data)
        .map_err(|why| format!("its answer is not understood: {why}"))
}

fn one(what: &str, pem: &str) -> Result<Vec<u8>, String> {
    let all: Result<Vec<CertificateDer<'_>>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all.as_deref() {
        Ok([one]) => Ok(one.to_vec()),
        Ok(all) => Err(format!("{what} is {} certificates, and not one", all.len())),
        Err(why) => Err(format!("{what} is no certificate in PEM: {why}")),
    }
}

pub(crate) fn signed(body: &[u8]) -> Result<Signed, String> {
    let data: SignData = data(body)?;
    Ok(Signed {
        certificate: one("data.certificate", &data.certificate)?,
        issuer: one("data.issuing_ca", &data.issuing_ca)?,
    })
}

pub(crate) fn issuer(body: &[u8]) -> Result<Vec<u8>, String> {
    let data: IssuerData = data(body)?;
    one("data.certificate", &data.certificate)
}

/// What an answer that is a no says.
pub(crate) fn errors(body: &[u8]) -> String {
    let read: Result<Errors, _> = serde_json::from_slice(body);
    match read {
        Ok(said) if said.errors.iter().any(|e| !e.trim().is_empty()) => said.errors.join("; "),
        _ => "it does not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
    use super::*;

    #[test]
    fn nothing_but_one_certificate_and_its_issuer_is_taken() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::default();
        let made = made.self_signed(&key).unwrap();
        let pem = made.pem();
        let answer = |certificate: &str, issuer: &str| {
            serde_json::json!({"data": {"certificate": certificate, "issuing_ca": issuer}})
                .to_string()
        };
        let good = signed(answer(&pem, &pem).as_bytes()).unwrap();
        assert_eq!(
            (&*good.certificate, &*good.issuer),
            (&**made.der(), &**made.der())
        );
        let two = format!("{pem}{pem}");
        let cut = &pem[..pem.len() / 2];
        for bad in [
            answer(&two, &pem),
            answer(&pem, &two),
            answer("", &pem),
            answer(&pem, ""),
            answer(cut, &pem),
            answer(&key.serialize_pem(), &pem),
            "{}".to_owned(),
            "[]".to_owned(),
            r#"{"data": null}"#.to_owned(),
            r#"{"data": {"certificate": 1, "issuing_ca": 2}}"#.to_owned(),
            r#"{"data": {"certificate": "x""#.to_owned(),
            "[".repeat(5_000),
            String::new(),
        ] {
            let why = signed(bad.as_bytes()).unwrap_err();
            assert!(!why.contains("PRIVATE KEY"), "{why}");
        }
        assert_eq!(errors(br#"{"errors":["a","b"]}"#), "a; b");
        for silent in [
            br#"{"errors":[]}"# as &[u8],
            b"{}",
            b"<html>",
            b"",
            br#"{"errors":[1]}"#,
        ] {
            assert_eq!(errors(silent), "it does not say why");
        }
    }
}
