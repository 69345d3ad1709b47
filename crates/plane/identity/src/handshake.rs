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

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// One word for why a handshake failed.
pub fn handshake_kind(error: &io::Error) -> &'static str {
    if let Some(why) = verdict(error) {
        return why.kind();
    }
    match tls(error) {
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
