//! Why a handshake failed: one word for metrics, from a set that is bounded.

use std::io;

use rustls::{CertificateError, Error};

use crate::NotTrusted;

/// The verdict on a certificate in the error of a handshake, if that is what it is.
pub fn verdict(error: &io::Error) -> Option<&NotTrusted> {
    match tls(error)? {
        Error::InvalidCertificate(CertificateError::Other(why)) => why.0.downcast_ref(),
        _ => None,
    }
}

/// Whether a handshake failed by a verdict on the other end's certificate, which was told of where it was given. Who is kept out is
/// refused in TLS's own word for it, so that it learns why.
pub fn is_judged(error: &io::Error) -> bool {
    let revoked = matches!(
        tls(error),
        Some(Error::InvalidCertificate(CertificateError::Revoked))
    );
    revoked || verdict(error).is_some()
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// One word for why a handshake failed.
pub fn handshake_kind(error: &io::Error) -> &'static str {
    if let Some(why) = verdict(error) {
        return why.kind();
    }
    match tls(error) {
        Some(Error::InvalidCertificate(CertificateError::Revoked)) => "denied",
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => "certificate",
        Some(Error::AlertReceived(_)) => "alert",
        Some(Error::PeerIncompatible(_)) => "incompatible",
        Some(Error::NoApplicationProtocol) => "protocol",
        Some(Error::InvalidMessage(_) | Error::PeerMisbehaved(_)) => "malformed",
        Some(_) => "tls",
        None => match error.kind() {
            io::ErrorKind::TimedOut => "silent",
            io::ErrorKind::Unsupported => "protocol",
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "broken_off",
            io::ErrorKind::InvalidData => "malformed",
            _ => "tls",
        },
    }
}
