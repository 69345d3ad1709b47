//! Names of images: `name[:tag]`, checked and put into one form.
//!
//! Pure. Used by the image store.

use std::fmt;

use super::error::{ImageError, printable};

const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A checked image name with its tag; `docker.io/library/` is dropped, no tag means `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName(String);

impl ImageName {
    /// Checks and normalises a name.
    ///
    /// # Errors
    /// [`ImageError::Name`] with the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let refuse = |why| {
            Err(ImageError::Name {
                name: printable(text.as_bytes()),
                why,
            })
        };
        if text.len() > NAME_MAX {
            return refuse("it is longer than 255 characters");
        }
        let short = text.strip_prefix("docker.io/").unwrap_or(text);
        let short = short.strip_prefix("library/").unwrap_or(short);
        let after_slash = short.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match short[after_slash..].find(':') {
            Some(colon) => (
                &short[..after_slash + colon],
                &short[after_slash + colon + 1..],
            ),
            None => (short, "latest"),
        };
        let sound = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.ends_with(|last: char| last.is_ascii_alphanumeric())
        };
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        // Only a registry, which is never the last part, may have a port.
        let without_port = match name.split_once('/') {
            Some((registry, rest)) => match registry.split_once(':') {
                Some((host, port)) if port.parse::<u16>().is_ok() => format!("{host}/{rest}"),
                _ => name.to_owned(),
            },
            None => name.to_owned(),
        };
        if !without_port
            .split('/')
            .all(|part| sound(part) && part.chars().all(allowed))
        {
            return refuse("use letters, digits, '.', '_', '-' in parts separated by '/'");
        }
        if name.contains("..") {
            return refuse("it contains '..'");
        }
        let tag_allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        let tag_start =
            tag.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
        if tag.len() > TAG_MAX || !tag_start || !tag.chars().all(tag_allowed) {
            return refuse("the tag must be 1 to 128 letters, digits, '.', '_' or '-'");
        }
        if name == "host" {
            return refuse("'host' is the built-in image");
        }
        Ok(Self(format!("{name}:{tag}")))
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
