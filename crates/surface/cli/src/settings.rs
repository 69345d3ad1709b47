//! What a command works with, from its flags, the environment, the contexts file and defaults, in that order.

use clap::Args;
use prism_types::{Fault, Millis, Name, nearest, parse_duration};

use crate::context::{self, Contexts, Trusted};
use crate::exit::{Exit, Failure};
use crate::output::Format;

/// Flags that every verb takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// Address of the API, such as http://127.0.0.1:8008 [default: that of the context]
    #[arg(
        long,
        global = true,
        env = "PRISM_API",
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub api: Option<String>,
    /// Which known cluster to talk to (see `prismctl context ls`) [default: the current one]
    #[arg(
        long,
        global = true,
        env = "PRISM_CONTEXT",
        value_name = "NAME",
        help_heading = "Global options"
    )]
    pub context: Option<Name>,
    /// Namespace to work in [default: that of the context, or `default`]
    #[arg(
        long,
        global = true,
        env = "PRISM_NAMESPACE",
        value_name = "NAME",
        help_heading = "Global options"
    )]
    pub namespace: Option<Name>,
    /// How long to wait for the server to answer one request [default: 30s]
    #[arg(long, global = true, env = "PRISM_TIMEOUT", value_name = "TIME", value_parser = parse_duration, help_heading = "Global options")]
    pub timeout: Option<Millis>,
    /// How data is printed on standard output
    #[arg(
        short,
        long,
        global = true,
        env = "PRISM_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Global options"
    )]
    pub output: Format,
    /// Say more about what is being done, on standard error
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
}

/// A server to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address of its API.
    pub api: String,
    /// The bearer token, if one is known for it.
    pub token: Option<String>,
    /// The context it comes from, if it comes from one.
    pub context: Option<Name>,
    /// Namespace to work in.
    pub namespace: Option<Name>,
    /// How the server is known, if it speaks TLS.
    pub trusted: Trusted,
    /// Whether the person named it for this command; otherwise it is the current context.
    pub named: bool,
}

impl Target {
    /// Whether this is the throw-away node of `prismd dev`, named by nobody: it may well be gone.
    pub fn may_be_gone(&self) -> bool {
        !self.named && self.context.as_ref().is_some_and(|c| c.as_str() == "dev")
    }
}

impl Globals {
    /// How long to wait for one answer.
    pub fn patience(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.timeout.map_or(30_000, |t| t.0.max(1)))
    }

    /// The server that is meant, if there is one.
    ///
    /// # Errors
    /// When the contexts file is unreadable or has no context of that name.
    pub fn target(&self) -> Result<Option<Target>, Failure> {
        let token = std::env::var("PRISM_TOKEN").ok().filter(|t| !t.is_empty());
        let all = context::path().and_then(|p| context::load(&p));
        let all = match (all, &self.api) {
            (Ok(all), _) => all,
            // With an address of its own, the command needs no file.
            (Err(_), Some(_)) if self.context.is_none() => Contexts::default(),
            (Err(e), _) => {
                return Err(Failure::new(Exit::Usage, Fault::Contexts, e.to_string()));
            }
        };
        let mut target = self.choose(&all, token)?;
        if let Some(target) = &mut target {
            let said = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
            if let Some(pin) = said("PRISM_PIN") {
                target.trusted.pin = Some(pin.to_string_lossy().into_owned());
            }
            if let Some(ca) = said("PRISM_CA") {
                target.trusted.pin = None;
                target.trusted.ca = Some(ca.into());
            }
        }
        Ok(target)
    }

    /// [`Globals::target`], given the file and the environment.
    fn choose(&self, all: &Contexts, token: Option<String>) -> Result<Option<Target>, Failure> {
        let name = self.context.as_ref().or(all.current.as_ref());
        let context = match name {
            None => None,
            Some(name) => match all.contexts.get(name) {
                Some(c) => Some((name, c)),
                None if self.context.is_none() && self.api.is_some() => None,
                None => return Err(unknown(name, all)),
            },
        };
        let Some(api) = self
            .api
            .clone()
            .or_else(|| context.map(|(_, c)| c.api.clone()))
        else {
            return Ok(None);
        };
        // A context's token goes only to that context's server, unless the context was named together with the address.
        let same = context.filter(|(_, c)| c.api == api || self.context.is_some());
        let namespace = self.namespace.clone();
        Ok(Some(Target {
            token: token.or_else(|| same.and_then(|(_, c)| c.token.clone())),
            context: same.map(|(name, _)| name.clone()),
            namespace: namespace.or_else(|| same.and_then(|(_, c)| c.namespace.clone())),
            named: self.api.is_some() || self.context.is_some(),
            trusted: same.map(|(_, c)| c.trusted()).unwrap_or_default(),
            api,
        }))
    }
}

fn unknown(name: &Name, all: &Contexts) -> Failure {
    let known = all.contexts.keys().map(Name::as_str);
    let near =
        nearest(name.as_str(), known).map_or(String::new(), |n| format!("; did you mean {n}?"));
    Failure::new(
        Exit::Usage,
        Fault::Contexts,
        format!("there is no context {name}{near}"),
    )
    .next("prismctl context ls, or prismctl context add NAME --api URL")
}

/// The failure of a verb that needs a server when none is known.
pub fn no_server() -> Failure {
    Failure::new(
        Exit::Unreachable,
        Fault::NoServer,
        "no server is known to this command line",
    )
    .next("start one here with `prismd dev`, or name one with --api or `prismctl context add`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;

    fn file() -> Contexts {
        let one = |api: &str, token: &str| Context {
            api: api.into(),
            token: Some(token.into()),
            namespace: Some("team".parse().unwrap()),
            ..Context::default()
        };
        Contexts {
            current: Some("dev".parse().unwrap()),
            contexts: [
                ("dev".parse().unwrap(), one("http://dev", "dev-token")),
                ("lab".parse().unwrap(), one("http://lab", "lab-token")),
            ]
            .into(),
        }
    }

    fn target(
        api: Option<&str>,
        context: Option<&str>,
        token: Option<&str>,
    ) -> Result<Option<Target>, Failure> {
        Globals {
            api: api.map(Into::into),
            context: context.map(|c| c.parse().unwrap()),
            ..Globals::default()
        }
        .choose(&file(), token.map(Into::into))
    }

    #[test]
    fn flags_come_before_the_file() {
        let t = target(None, None, None).unwrap().unwrap();
        assert_eq!(
            (t.api.as_str(), t.token.as_deref()),
            ("http://dev", Some("dev-token"))
        );
        assert!(t.may_be_gone());
        let t = target(None, Some("lab"), None).unwrap().unwrap();
        assert_eq!((t.api.as_str(), t.named), ("http://lab", true));
        let t = target(None, Some("dev"), Some("other")).unwrap().unwrap();
        assert_eq!(t.token.as_deref(), Some("other"));
        assert!(!t.may_be_gone());
        assert_eq!(
            Globals::default().choose(&Contexts::default(), None),
            Ok(None)
        );
    }

    #[test]
    fn a_token_never_goes_to_another_server() {
        let t = target(Some("http://elsewhere"), None, None)
            .unwrap()
            .unwrap();
        assert_eq!((t.token, t.context, t.namespace), (None, None, None));
        let t = target(Some("http://dev"), None, None).unwrap().unwrap();
        assert_eq!(t.token.as_deref(), Some("dev-token"));
    }

    #[test]
    fn an_unknown_context_names_the_nearest() {
        let e = target(None, Some("lbb"), None).unwrap_err();
        assert_eq!(e.exit(), Exit::Usage);
        assert!(e.message().contains("did you mean lab?"), "{e}");
    }
}
