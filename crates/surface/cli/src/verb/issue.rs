//! `ca issue`: a certificate for somebody who uses the API. The key is made here and stays here.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use prism_api::{CaIssue, CaIssued, Op};
use prism_client::Ask;
use prism_identity::Key;
use prism_types::{Fault, Name, Noun, Verb};

use crate::exit::Failure;
use crate::output::{Format, Out, Table, human};
use crate::server::{Server, typed};
use crate::verb::token::{RoleArg, duration_text, some, words};

/// What the certificate stands for.
#[derive(Args, Debug)]
pub struct IssueArgs {
    /// What it is for; its files are called so
    name: Name,
    /// What it may do
    #[arg(long, value_enum, default_value = "submitter")]
    role: RoleArg,
    /// Only in this namespace; may be repeated [default: in all]
    #[arg(long = "namespace", value_name = "NAME")]
    namespace: Vec<Name>,
    /// Only to these things; may be repeated [default: to all]
    #[arg(long = "resource", value_name = "RESOURCE", value_parser = words(Noun::ALL))]
    resources: Vec<Noun>,
    /// Only so; may be repeated [default: in every way of the role]
    #[arg(long = "verb", value_name = "VERB", value_parser = words(Verb::ALL))]
    verbs: Vec<Verb>,
    /// How long it is good, at most 90d
    #[arg(long, value_name = "TIME", value_parser = duration_text, default_value = "30d")]
    expires_in: String,
    /// Where NAME.pem, NAME.key and NAME-ca.pem are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write()
        .map_err(|e: std::io::Error| Failure::file(format!("cannot write {}: {e}", path.display())))
}

fn no_key(why: &prism_identity::IdentityError) -> Failure {
    Failure::failed(Fault::File, format!("no key was made: {why}"))
}

/// Does it.
///
/// # Errors
/// What the server says, or when a file is there already or cannot be written.
pub async fn run(args: IssueArgs, server: &Server, out: &Out) -> Result<(), Failure> {
    let file = |end: &str| args.out.join(format!("{}{end}", args.name));
    let (certificate, key, authority) = (file(".pem"), file(".key"), file("-ca.pem"));
    for path in [&certificate, &authority] {
        if path.exists() {
            return Err(Failure::file(format!(
                "{} is there already",
                path.display()
            )));
        }
    }
    let made = Key::generate().map_err(|e| no_key(&e))?;
    // Kept before it is asked for: what was signed for a key that is lost is of no use.
    create(&key, &made.to_pem())?;
    let body = CaIssue {
        name: args.name.to_string(),
        role: args.role.into(),
        namespaces: some(args.namespace),
        resources: some(args.resources),
        verbs: some(args.verbs),
        expires_in: args.expires_in,
        request: made.request_pem().map_err(|e| no_key(&e))?,
    };
    let answer = match server.ask(Ask::new(Op::CaIssue).json(&body)).await {
        Ok(answer) => answer,
        Err(failure) => {
            // Nothing stands for it; if the answer was lost, an administrator sees it in `token ls`.
            let _gone = std::fs::remove_file(&key);
            return Err(failure);
        }
    };
    let issued: CaIssued = typed(&answer)?;
    create(&certificate, &issued.certificate)?;
    create(&authority, &issued.authority)?;
    if out.format != Format::Table {
        return out.doc(&answer, Table::fields);
    }
    out.print(&format!(
        "id           {}\nrole         {}\ngood until   {}\ncertificate  {}\nkey          {}\nauthority    {}\n",
        issued.id,
        issued.role,
        human::moment(issued.expires),
        certificate.display(),
        key.display(),
        authority.display(),
    ))?;
    out.note(&format!(
        "it stands for a token: revoke it with prismctl token revoke {}",
        issued.id
    ));
    Ok(())
}
