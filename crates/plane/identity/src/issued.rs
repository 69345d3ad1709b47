//! What somebody else has signed for a member is looked at before anybody is given it: it has to be what was asked for, and nothing more.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::lifetime::SLACK;
use crate::trust::{End, holder};
use crate::{Holder, IdentityError, Issued, Lifetime, NotTrusted, Pin, Role, Trust};

/// Most bytes of a certificate.
const MOST: usize = 16 << 10;

/// What a certificate was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose it is to be.
    pub holder: Holder,
    /// The key of the request.
    pub key: Pin,
    /// The roots that are trusted (DER), of which one has to have signed it.
    pub roots: &'a [Vec<u8>],
    /// Unix seconds.
    pub now: i64,
    /// For how many seconds from now it was asked.
    pub seconds: i64,
}

/// Why a certificate is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsAsked {
    /// It cannot be read.
    #[error("it is no certificate that can be read: {0}")]
    Damaged(String),
    /// It could sign others.
    #[error("it is the certificate of an authority, which could sign others")]
    Authority,
    /// It is none of an authority.
    #[error("what has signed it is no authority: {0}")]
    NoAuthority(&'static str),
    /// It is for another key than that of the request.
    #[error("it is for another key than the one that was asked for")]
    OtherKey,
    /// It names somebody else, or several.
    #[error("it is to name {wanted} and nobody else: {found}")]
    OtherName {
        /// Who was asked for.
        wanted: Holder,
        /// What it says.
        found: String,
    },
    /// It is good for longer.
    #[error("it is good for {seconds} s from now, and {wanted} s were asked for")]
    TooLong {
        /// Until when, from now.
        seconds: i64,
        /// What was asked for.
        wanted: i64,
    },
    /// No member would take it.
    #[error("no member would take it: {0}")]
    NotTrusted(NotTrusted),
}

fn parsed(certificate: &[u8]) -> Result<X509Certificate<'_>, NotAsAsked> {
    let damaged = NotAsAsked::Damaged;
    if certificate.len() > MOST {
        return Err(damaged(format!("it has more than {MOST} bytes")));
    }
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|why| damaged(why.to_string()))?;
    match rest.is_empty() {
        true => Ok(parsed),
        false => Err(damaged("something follows it".to_owned())),
    }
}

fn at(now: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(now).unwrap_or_default(),
    ))
}

/// Whether a certificate (DER) is that of an authority at this time (Unix seconds): something that a cluster may trust.
///
/// # Errors
/// Why not.
pub fn check_authority(certificate: &[u8], now: i64) -> Result<(), NotAsAsked> {
    let parsed = parsed(certificate)?;
    let damaged = |why: x509_parser::error::X509Error| NotAsAsked::Damaged(why.to_string());
    let constraints = parsed.basic_constraints().map_err(damaged)?;
    if !constraints.is_some_and(|c| c.value.ca) {
        return Err(NotAsAsked::NoAuthority("it does not say that it is one"));
    }
    let uses = parsed.key_usage().map_err(damaged)?;
    if uses.is_some_and(|uses| !uses.value.key_cert_sign()) {
        return Err(NotAsAsked::NoAuthority("its key may not sign certificates"));
    }
    let life = parsed.validity();
    if now < life.not_before.timestamp() - SLACK || now > life.not_after.timestamp() {
        return Err(NotAsAsked::NoAuthority("it is not good now"));
    }
    Ok(())
}

impl Wanted<'_> {
    /// Looks at a certificate (DER), as every member will who is shown it, and more closely. The chain is it and the root above it.
    ///
    /// # Errors
    /// Why it is not what was asked for.
    pub fn check(&self, certificate: &[u8]) -> Result<Issued, NotAsAsked> {
        let parsed = parsed(certificate)?;
        let damaged = |why: x509_parser::error::X509Error| NotAsAsked::Damaged(why.to_string());
        let constraints = parsed.basic_constraints().map_err(damaged)?;
        let uses = parsed.key_usage().map_err(damaged)?;
        if constraints.is_some_and(|c| c.value.ca)
            || uses.is_some_and(|uses| uses.value.key_cert_sign() || uses.value.crl_sign())
        {
            return Err(NotAsAsked::Authority);
        }
        if Pin::of(parsed.public_key().raw) != self.key {
            return Err(NotAsAsked::OtherKey);
        }
        let other = |found: String| NotAsAsked::OtherName {
            wanted: self.holder,
            found,
        };
        match holder(certificate) {
            Ok(found) if found == self.holder => {}
            Ok(found) => return Err(other(format!("it names {found}"))),
            Err(why) => return Err(other(why.to_string())),
        }
        let life = Lifetime {
            from: parsed.validity().not_before.timestamp(),
            until: parsed.validity().not_after.timestamp(),
        };
        let seconds = life.until.saturating_sub(self.now);
        // The clock of what signs may be ahead.
        if seconds > self.seconds.saturating_add(SLACK) {
            let wanted = self.seconds;
            return Err(NotAsAsked::TooLong { seconds, wanted });
        }
        let root = self.above(certificate)?;
        Ok(Issued {
            chain: vec![certificate.to_vec(), root],
            life,
        })
    }

    /// The root that stands behind it, at whichever end of a connection it will be shown.
    fn above(&self, certificate: &[u8]) -> Result<Vec<u8>, NotAsAsked> {
        let leaf = CertificateDer::from(certificate);
        let roles: &[Role] = &[self.holder.role];
        let mut last = NotTrusted::Stranger;
        for root in self.roots {
            let only = Trust::new(self.holder.cluster, std::slice::from_ref(root));
            let only = only.map_err(|why: IdentityError| NotAsAsked::Damaged(why.to_string()))?;
            let judge = |end| only.judge(end, (&leaf, &[]), roles, at(self.now)).map(drop);
            let judged = judge(End::Dialling).and_then(|()| match self.holder.role {
                Role::Server => judge(End::Dialled),
                Role::Worker | Role::Client => Ok(()),
            });
            match judged {
                Ok(()) => return Ok(root.clone()),
                // What another root says of it tells more than that this one has not signed it.
                Err(NotTrusted::Stranger) => {}
                Err(why) => last = why,
            }
        }
        Err(NotAsAsked::NotTrusted(last))
    }
}
