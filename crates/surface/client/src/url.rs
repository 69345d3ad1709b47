//! Paths and queries of requests: everything that is not plain is percent-encoded, so no id or name can become part of a path.

/// Appends `text` with everything but unreserved characters encoded.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
            }
        }
    }
}

/// A path with its query, built piece by piece.
#[derive(Debug)]
pub(crate) struct Target {
    text: String,
    queried: bool,
}

impl Target {
    /// Starts at a fixed path such as `/api/v1/jobs`.
    pub(crate) fn new(path: &str) -> Self {
        Self {
            text: path.to_owned(),
            queried: false,
        }
    }

    /// Adds one path segment.
    pub(crate) fn push(mut self, segment: impl std::fmt::Display) -> Self {
        self.text.push('/');
        let segment = segment.to_string();
        // A segment of dots would be resolved away on the way.
        if segment.is_empty() || segment.bytes().all(|b| b == b'.') {
            self.text.push_str("%2E");
        }
        encode(&mut self.text, &segment);
        self
    }

    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.text.push(if self.queried { '&' } else { '?' });
        self.queried = true;
        encode(&mut self.text, name);
        self.text.push('=');
        encode(&mut self.text, &value.to_string());
        self
    }

    /// Adds a query parameter if there is a value.
    pub(crate) fn maybe(self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds a parameter `true` if set.
    pub(crate) fn flag(self, name: &str, on: bool) -> Self {
        if on { self.query(name, "true") } else { self }
    }

    /// Says in which namespace the name in the path is looked up, where there is one and nothing is said yet.
    pub(crate) fn within(self, namespace: &str) -> Self {
        const NAMED: &[&str] = &["jobs", "sweeps", "sandboxes", "explain"];
        let (path, query) = self.text.split_once('?').unwrap_or((&self.text, ""));
        let names = |noun: &&str| {
            let rest = path.strip_prefix("/api/v1/")?.strip_prefix(*noun)?;
            rest.strip_prefix('/')
        };
        let said = query.split('&').any(|pair| pair.starts_with("namespace="));
        match NAMED.iter().find_map(names) {
            Some(_) if !said => self.query("namespace", namespace),
            _ => self,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_goes_where_a_name_is_looked_up_and_nothing_is_said() {
        let plain = |path: &str| Target::new(path).within("lab").as_str().to_owned();
        assert_eq!(
            plain("/api/v1/jobs/x/logs"),
            "/api/v1/jobs/x/logs?namespace=lab"
        );
        for other in ["/api/v1/jobs", "/api/v1/nodes/x", "/api/v1/tokens/x"] {
            assert_eq!(plain(other), other);
        }
        let said = Target::new("/api/v1/sandboxes")
            .push("b")
            .query("namespace", "z");
        assert_eq!(
            said.within("lab").as_str(),
            "/api/v1/sandboxes/b?namespace=z"
        );
    }

    #[test]
    fn nothing_leaves_its_place() {
        let target = Target::new("/api/v1/jobs")
            .push("../tokens?x=1")
            .push("..")
            .query("path", "a b&c=d/ä");
        assert_eq!(
            target.as_str(),
            "/api/v1/jobs/..%2Ftokens%3Fx%3D1/%2E..?path=a%20b%26c%3Dd%2F%C3%A4"
        );
    }
}
